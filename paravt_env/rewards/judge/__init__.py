"""The LLM judge: a scorer that supplies the value of the answer term."""
