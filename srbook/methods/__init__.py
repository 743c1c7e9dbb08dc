"""The methods, one file per paper."""

from srbook.methods.base import Method
from srbook.methods.bicubic import Bicubic
from srbook.methods.regression import Regression

METHODS: dict[str, type[Method]] = {method.kind: method for method in (Bicubic, Regression)}

__all__ = ["METHODS", "Bicubic", "Method", "Regression"]
