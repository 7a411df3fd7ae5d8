"""One model, independent many-body engines, one labelled dataset, an honest verdict.

Nothing heavy is imported here: ``orchestra --help`` must answer at once.
"""

__version__ = "0.1.0"
