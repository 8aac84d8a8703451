"""CLIP, and what prompt learning adds to it from outside.

Nothing here knows Dassl or a config: tensors and a stock OpenAI ``clip.model.CLIP`` go in, tensors come out.

Shape glossary, used in every docstring of the project:

====  =====================================================
B     images in a batch (views count as images)
C     classes
T     text length in tokens, without the inserted ones
E     inserted prompt tokens in one layer
P     patches of an image
L     layers of a tower
K     clusters
M     prompts in a pool
D     width of a tower
d     width of the joint space (``clip.text_projection.shape[1]``)
====  =====================================================
"""
