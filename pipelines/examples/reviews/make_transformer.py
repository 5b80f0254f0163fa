"""Makes the model folder `transformer/`: an untrained BERT of two layers, and a tokenizer of the words in `data.csv`.

Nothing is downloaded. The folder is part of the repository; `python make_transformer.py [FOLDER]` writes it again. A folder with
trained weights is used in the same way.
"""

import re
import sys
from pathlib import Path

import pandas as pd
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

HERE = Path(__file__).parent
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORD = r"not \w+|\w+|[^\w\s]+"
LENGTH = 40


def tokenizer(texts):
    """Returns a tokenizer whose vocabulary is the words and signs of the texts; "not dull" is one word.

    2,000 reviews are too few for an untrained transformer to learn what a negation belongs to.
    """
    words = sorted({word for text in texts for word in re.findall(WORD, text.lower())})
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[1]))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=LENGTH, **names)


def model(vocabulary_size, seed=42):
    """Returns an untrained BERT."""
    torch.manual_seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=LENGTH,
            type_vocab_size=1,
            initializer_range=0.1,
            num_labels=1,
        )
    )


def main(folder):
    """Writes the folder."""
    words = tokenizer(pd.read_csv(HERE / "data.csv")["review"])
    words.save_pretrained(folder)
    model(len(words)).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "transformer")
