"""The cold start: supervised fine-tuning on traces or published conversations."""
