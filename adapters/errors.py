"""What can go wrong with an adapter.

AdapterError
├── AdapterFormatError     the folder is not a well-formed adapter
└── AdapterMismatch        it is one, of another base model
"""


class AdapterError(Exception):
    """Base of everything this package raises on purpose."""


class AdapterFormatError(AdapterError):
    """The folder is not a well-formed adapter; the message names what is wrong."""


class AdapterMismatch(AdapterError):
    """The adapter belongs to another base; the message names what differs."""
