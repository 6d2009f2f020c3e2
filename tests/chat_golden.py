"""Golden conversations of transformers' apply_chat_template (made with transformers 5.24.0, tokenizers 0.23.3).

  chat_golden.py OUT NAME=TEMPLATE:TOKENIZER:BOS:EOS ...
      50 made-up conversations and, for each template (a file of a model card, by our name for it), the SHA-256 of each
      one rendered up to the assistant's next answer, and of its ids where no message holds the text of a special token
      (transformers would parse those: ours stay text): OUT

No test needs Python: test_rl_chat.c reads what was left in tests/data/chat.
"""
import hashlib
import json
import pathlib
import random
import struct
import sys

import tokenizers
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tokenizer_golden import read

PIECES = ["Hello", "What is 17 + 4?", " ", "\n", "\n\n", "\t", "  ", "\u2003", "\u00a0", "\x1c", "\u3000", "na\u00efve", "e\u0301",
          "\u65e5\u672c\u8a9e", "\U0001f680", "{{ x }}", "{% if %}", "'quoted'", '"', "\\n", "a" * 40, "[INST]", "<<SYS>>",
          "{question}", "<think>\n", "\n</think>\n\n", "<b>&amp;</b>", "1,000.50", "I'll", "end."]
SPECIAL = ["<|im_end|>", "<|im_start|>system\n", "<|eot_id|>", "<|begin_of_text|>", "</s>", "<s>", "<|endoftext|>"]


def conversations():
    r = random.Random(7)
    made = []
    for i in range(50):
        special = i % 5 == 4
        pieces = PIECES + 3 * SPECIAL if special else PIECES

        def text(least):
            return "".join(r.choice(pieces) for _ in range(r.randrange(least, 7)))

        messages = [{"role": "system", "content": text(i % 3)}] if i % 2 else []
        for _ in range(r.randrange(4)):
            messages += [{"role": "user", "content": text(0)}, {"role": "assistant", "content": text(0)}]
        messages.append({"role": "user", "content": text(0 if i % 7 == 3 else 1)})
        made.append(messages)
    return made


def unnormalized(text):
    """Special tokens looked for before the text is normalized, as all but one file say: that of Llama 2 here would put a
    space before the first of them."""
    file = json.loads(text)
    for token in file["added_tokens"]:
        token["normalized"] = token["normalized"] and not token["special"]
    return json.dumps(file)


def main(out, *templates):
    made = conversations()
    result = {"conversations": made, "templates": []}
    for argument in templates:
        name, rest = argument.split("=", 1)
        template, path, bos, eos = rest.split(":")
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer.from_str(unnormalized(read(pathlib.Path(path)))),
            bos_token=bos or None, eos_token=eos, chat_template=pathlib.Path(template).read_text(encoding="utf-8"))
        texts, ids = [], []
        for messages in made:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True,
                                                 date_string="26 Jul 2024")
            texts.append(hashlib.sha256(text.encode()).hexdigest())
            parsed = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
            plain = not any(s.strip() in m["content"] for s in SPECIAL for m in messages)
            ids.append(hashlib.sha256(struct.pack("<%di" % len(parsed), *parsed)).hexdigest() if plain else None)
        result["templates"].append({"name": name, "tokenizer": pathlib.Path(path).parent.name, "texts": texts, "ids": ids})
    pathlib.Path(out).write_text(json.dumps(result, indent=1) + "\n")


main(*sys.argv[1:])
