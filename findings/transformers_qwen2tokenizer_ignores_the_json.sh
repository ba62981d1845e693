#!/usr/bin/env bash
# transformers 5 replaces the pre-tokenizer of a tokenizer.json that names Qwen2Tokenizer by Qwen's.
#
# Versions: transformers 5.19.0, tokenizers 0.23.3. Seen: 2026-12-01.
# Matters to: whoever trains a tokenizer of their own for a small Qwen-VL, and samples with one
# library (tokenizers) what is scored with another. The same file gives other ids; nothing is said.
# Written by PreTrainedTokenizerFast (`tokenizer_class` TokenizersBackend) it is taken as it stands.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet transformers==5.19.0 tokenizers==0.23.3

venv/bin/python - 2>log <<'PYTHON' || { cat log >&2; exit 1; }
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

own = Tokenizer(models.BPE())
as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
own.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), as_bytes])
own.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
own.train_from_iterator(["at 2024.5s crop(10,20)"] * 20, trainer)

Path("own").mkdir()
own.save("own/tokenizer.json")


def seen(name):
    Path("own/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    return AutoTokenizer.from_pretrained("own").tokenize("at 2024.5s")


wanted = own.encode("at 2024.5s").tokens
kept, replaced = seen("PreTrainedTokenizerFast"), seen("Qwen2Tokenizer")
print("guess: the pieces of tokenizer.json, whatever class is named")
print("tokenizer.json:               ", wanted)
print("seen, PreTrainedTokenizerFast:", kept)
print("seen, Qwen2Tokenizer:         ", replaced)
if wanted != ["Ġat", "Ġ2024.5s"] or kept != wanted or replaced == wanted or "2" not in replaced:
    sys.exit("changed")
PYTHON
