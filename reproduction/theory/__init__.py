"""The ID-LoRA paper's theory, measured: Theorems 1 and 2, the rank analysis, the row clusters. No torch, no models."""

from reproduction.theory.study import Theory, measure, write
from reproduction.theory.verdicts import Claim
from reproduction.theory.words import summary

__all__ = ["Claim", "Theory", "measure", "summary", "write"]
