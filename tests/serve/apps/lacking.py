"""
A module whose own import fails.
"""

import a_package_that_is_not_there

app = a_package_that_is_not_there.app
