"""Where engines were before version 0.2: tasks that were submitted then still start them here."""

import sys

if sys.argv[0] == "-m":  # so it is while Python looks for the module that it shall run
    sys.exit(
        "orchestra: this task was submitted by an earlier version of this program, which computed "
        "otherwise; submit it again with the same command"
    )
