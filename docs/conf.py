"""The documentation as a site: ``make docs`` builds it with warnings as errors."""

from importlib.metadata import version as version_of

project = 'atss_ext'
author = 'the atss_ext developers'
copyright = f'2026, {author}'
release = version_of('atss_ext')

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
exclude_patterns = ['_build']
myst_heading_anchors = 3
# Pages are read on the repository's site as well, where they link to files of the tree.
myst_enable_extensions = ['colon_fence']
nitpicky = True
# Types of other projects, which are not fetched to build these pages.
nitpick_ignore_regex = [('py:.*', r'(torch|numpy|np|mmdet|mmengine|collections|typing)\..*|Tensor|optional')]

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# "[N, 4] xyxy" in an argument's text is a shape, no link.
napoleon_use_ivar = True

html_theme = 'furo'
html_title = f'atss_ext {release}'
html_show_sphinx = False
