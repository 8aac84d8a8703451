"""The prompted forward of both CLIP towers, run from outside over the blocks of an unchanged model.

A method chooses the tokens to insert, their layers, and which token may attend to which; the functions here do the
rest. ``prompts`` has one entry a layer, for the slots of the inserted tokens at the input of that layer:

* A tensor: the tokens. The first one inserts them, a later one overwrites the slots.
* A function: from the slots' states, (N, E, D) for any N, to new ones.
* ``None``: the slots keep the states that the layer before left.

After the last entry the inserted tokens are ordinary tokens. No prompts at all is stock CLIP. Tokens inserted in layer
1 are a part of the input, with positions (text) or ``ln_pre`` (vision), unless they are ``bare``: then they may enter
at any layer (leading entries are ``None``), and the words keep their positions. `encode_image_inserted` also returns
the states that the inserted tokens end with. ``beside`` is a path of its own beside each block, for each token alone.

Work is left out where it cannot change the result:

* Tokens that the next layer overwrites are keys and values only: no query, no attention output, no MLP.
* Text after the longest EOT is cut off, since the causal mask hides it from every EOT. Classes that are taken in chunks
  are sorted by length.
* The last layer computes only the rows that are read (CLS, EOT, inserted tokens where they are asked for).
* The tokens that all classes share (SOS, prompts, common first words) run once, not once per class.

`image_tower.py` and `text_tower.py` hold the two towers, `blocks.py` what they share, `shared_prefix.py` the last point
above, `plain.py` the same without any saving.
"""

from .blocks import Beside, Prompts
from .image_tower import encode_image, encode_image_inserted, encode_image_layers, vision_attention
from .text_tower import Sentences, embed_tokens, encode_text

__all__ = [
    "Beside",
    "Prompts",
    "Sentences",
    "embed_tokens",
    "encode_image",
    "encode_image_inserted",
    "encode_image_layers",
    "encode_text",
    "vision_attention",
]
