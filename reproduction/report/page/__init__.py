"""Report page: results and experiments as one self-contained HTML file."""

from reproduction.report.page.build import build_page, write_page
from reproduction.report.page.provenance import gather_provenance

__all__ = ["build_page", "gather_provenance", "write_page"]
