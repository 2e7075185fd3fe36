"""The bank that these tests use."""

from tests.books import bank as bank
from tests.books import own_bank as own_bank
