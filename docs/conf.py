"""How Sphinx makes the site: ``sphinx-build -W --keep-going -n -b html docs build/docs``."""

project = "mpicoded"
html_title = "mpicoded"
html_theme = "furo"
html_show_copyright = False
extensions = ["myst_parser"]
myst_heading_anchors = 4
# Links to files beside the pages become downloads; test_links.py says what such a link may be.
