"""The report as one page of HTML, which holds all that it needs and asks nothing of the network."""

from tinydeploy.report.page.render import html_report, write_page

__all__ = ["html_report", "write_page"]
