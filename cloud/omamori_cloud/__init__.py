"""Ingest, store and pages for what the boxes report."""
