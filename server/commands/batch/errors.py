"""What stands in a batch's way."""


class BatchError(Exception):
    """The batch cannot be run; the message says why, in one sentence."""
