"""The daemon on the box: engine, feed, link, identity, health."""
