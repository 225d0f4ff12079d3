"""The words that the pocket model has tokens for, and the tokenizer made from them.

Byte-level BPE, trained only on this word list: every word, number and name part below is one token, and any other text
(a real breed, a user's question) is written in bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mllm.pocket.species import ACCENT_PARTS, COLOURS, FORMS, NOUNS, PATTERNS, species

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONTROL = "<|endoftext|> <|im_start|> <|im_end|> <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|>".split()
TAGS = (
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
_PROSE = (
    "Find the Reason in then answer Answer What are marks of Describe How do I know Tell me about List every at "
    "Which fits with So is There no this picture it a an and that not look looks like its has which one thing box "
    "Caption Where same both first second third image photo crop"
).split()
_SPARE = (
    "species genus name kind type none these those here sure unsure different small large closer look left right above "
    "below more than two each of on by near north south east west coast forest field water spring summer autumn winter "
    "morning night Seen Look Zoom Yes No None Compare Both First Second Card Cards Name Choose Photo Image"
).split()
"""Words that no lesson of the base has: fine-tuning can use them as single tokens."""
_ROLES = ("user", "assistant", "system")
_PUNCTUATION = ("(", "),(", ")", "),", ").", ":", "):", ",", ".", "?", "-", "'")

CHAT_TEMPLATE = """{%- for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}
{%- for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}
{%- for part in message['content'] if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% endfor %}
{%- endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""Text before images: image tokens can then attend to the question; otherwise so small a model did not learn to
point."""


def words() -> list[str]:
    """Return every piece of text that must be a single token, in a fixed order."""
    names = sorted({part for one in species() for part in one.name.split()})
    marks = [*FORMS, *COLOURS, *PATTERNS, *sorted(set(ACCENT_PARTS.values())), *sorted(set(NOUNS.values()))]
    digits = [str(number) for number in range(101)]
    spaced = [word for word in [*marks, *names, *_PROSE, *_SPARE, *digits[1:10]] if not word[0].isupper()]
    capitalised = [word for word in [*names, *_PROSE, *_SPARE] if word[0].isupper()]
    bare = [*digits, *_PUNCTUATION, *FORMS, *capitalised, *_ROLES, " ", "\n"]
    return list(dict.fromkeys([*(f" {word}" for word in spaced), " (", *bare]))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the pocket tokenizer.

    A capitalised word never includes the space before it: a name is the same tokens at the start of a thought and
    inside a question, so that a small model can copy it.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r"\p{Lu}\p{L}*| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=20_000,
        special_tokens=CONTROL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Long words are repeated more often, so that they are merged first and no short word's merge splits them.
    corpus = (word for word in words() for _ in range(2 + len(word)))
    backend.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=CONTROL[1:],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(list(TAGS))
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
