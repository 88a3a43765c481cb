"""Keys, TUF repository, certificate authorities, factory registry and enrolment.

Everything here runs at the operator's, nothing on the box. Parts meet through files: a feed pack comes in, a directory
that any web server can serve goes out.
"""

from __future__ import annotations
