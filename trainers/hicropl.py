"""HiCroPL: deep prompts of both towers that flow into each other (Zheng et al., ICCV 2025)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..allowed import Flag, Real, Text, Whole
from ..clip_patches import encoders
from ..clip_patches.anatomy import anatomy
from ..clip_patches.class_texts import sentence_features
from ..clip_patches.loading import set_precision
from ..clip_patches.stock import CLIP
from .base import Batch, unit
from .ivlp import IVLP
from .parts.described import Described, sentences_of
from .parts.options import LAYERS
from .parts.prompts import check_depth
from .parts.teacher import load_teacher

HEADS = 8  # of all attentions, a constant of the authors' code


def attention(width: int) -> nn.MultiheadAttention:
    """Return an attention over unbatched rows, (N, width)."""
    if width % HEADS:
        raise ValueError(f"HiCroPL's attentions have {HEADS} heads, which do not divide this CLIP's width of {width}")
    return nn.MultiheadAttention(width, HEADS)


class Pooler(nn.Module):
    """Summarise the prompts of a layer in one token."""

    def __init__(self, width: int):
        super().__init__()
        self.attn = attention(width)
        self.ln_1 = nn.LayerNorm(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, proxy: Tensor, prompts: Tensor) -> Tensor:
        """Attend from the proxy, (1, D), to the prompts, (n, D); (1, D)."""
        rows = self.ln_1(prompts)
        return self.ln_2(proxy + self.attn(self.ln_1(proxy), rows, rows, need_weights=False)[0])


class FeedForward(nn.Module):
    """A block's feed-forward layers, with CLIP's QuickGELU."""

    def __init__(self, width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows, (N, D)."""
        hidden = self.c_fc(x)
        return self.c_proj(hidden * torch.sigmoid(1.702 * hidden))


class Mapper(nn.Module):
    """Write the prompts of some layers of a tower anew from what the other tower's layers hold.

    Args:
        width: Of the tower that is written.
        source: Of the other tower.
    """

    def __init__(self, width: int, source: int):
        super().__init__()
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(source, width)
        self.linear_v = nn.Linear(source, width)
        self.attn = attention(width)
        self.ln_1 = nn.LayerNorm(width)
        self.ffn = FeedForward(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, prompts: Sequence[Tensor], pooled: Tensor) -> list[Tensor]:
        """Return the new prompts of the layers, each (n, D), from one token a layer of the other tower, (k, D')."""
        queries = self.linear_q(torch.cat(list(prompts)))
        keys, values = self.ln_1(self.linear_k(pooled)), self.ln_1(self.linear_v(pooled))
        x = queries + self.attn(self.ln_1(queries), keys, values, need_weights=False)[0]
        x = x + self.ffn(self.ln_2(x))
        return list(x.split(len(prompts[0])))


class FlowingPrompts(nn.Module):
    """Deep prompts of both towers, and the fixed maps by which they write each other.

    Attributes of fixed maps require no gradient, but shape the prompts and are saved.

    Args:
        clip: Stock CLIP with a ViT visual tower.
        ctx: Start of the text prompts of layer 1, (n, D_t).
        depth: Prompted layers of both towers, 2 to the shallower tower's depth; -1 for that.
        cross_layer: Layers 1 to this one flow from text to vision, the others from vision to text; below the depth; -1
            for half of it.
        stored: Take the prompts as they are stored, in evaluation too; see :meth:`forward`.
    """

    def __init__(self, clip: CLIP, ctx: Tensor, depth: int, cross_layer: int, stored: bool):
        super().__init__()
        sizes = anatomy(clip)
        text, vision = ctx.shape[1], sizes.vision_width
        depth = check_depth("both", depth, min(sizes.vision_layers, sizes.text_layers), 2)
        cross_layer = depth // 2 if cross_layer == -1 else cross_layer
        if not cross_layer < depth:
            raise ValueError(f"CROSS_LAYER {cross_layer} must be below the prompt depth {depth}; or -1 for half of it")
        self.cross_layer, self.stored = cross_layer, stored
        drawn = [0.02 * torch.randn(ctx.shape) for _ in range(depth - 1)]
        self.cross_prompts_text = nn.ParameterList([ctx.detach().float().clone(), *drawn])
        drawn_once = 0.02 * torch.randn(len(ctx), vision)
        self.cross_prompts_visual = nn.ParameterList(drawn_once.clone() for _ in range(depth))
        self.text2visual_net = Mapper(vision, text)
        self.visual2text_net = Mapper(text, vision)
        self.attn_pooling_text_nets = _copies(Pooler(text), cross_layer)
        self.attn_pooling_visual_nets = _copies(Pooler(vision), depth - cross_layer)
        proxies = torch.randn(1, text), torch.randn(1, vision)
        self.text_proxy_token = nn.ParameterList(proxies[0].clone() for _ in range(cross_layer))
        self.visual_proxy_token = nn.ParameterList(proxies[1].clone() for _ in range(depth - cross_layer))
        self.requires_grad_(False)
        self.cross_prompts_text.requires_grad_(True)
        self.cross_prompts_visual.requires_grad_(True)

    def forward(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the prompts of the text layers, each (n, D_t), and of the vision layers, each (n, D_v).

        In training as they are stored, since :meth:`write_flow` has written them; in evaluation they flow first, and
        nothing is written.
        """
        if self.training or self.stored:
            return list(self.cross_prompts_text), list(self.cross_prompts_visual)
        return self.flow()

    @torch.no_grad()
    def flow(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the prompts after they have written each other once: text to vision first, then vision to text."""
        text, vision, k = list(self.cross_prompts_text), list(self.cross_prompts_visual), self.cross_layer
        with torch.autocast(text[0].device.type, enabled=False):
            pooled = _pool(self.attn_pooling_text_nets, self.text_proxy_token, text[:k])
            vision[:k] = self.text2visual_net(vision[:k], pooled)
            pooled = _pool(self.attn_pooling_visual_nets, self.visual_proxy_token, vision[k:])
            text[k:] = self.visual2text_net(text[k:], pooled)
        return text, vision

    @torch.no_grad()
    def write_flow(self) -> None:
        """Store the prompts as they are after they have written each other once."""
        text, vision = self.flow()
        for stored, new in zip([*self.cross_prompts_text, *self.cross_prompts_visual], [*text, *vision]):
            stored.copy_(new)


def _copies(module: nn.Module, count: int) -> nn.ModuleList:
    return nn.ModuleList(copy.deepcopy(module) for _ in range(count))


def _pool(poolers: nn.ModuleList, proxies: nn.ParameterList, prompts: Sequence[Tensor]) -> Tensor:
    """Summarise each layer in one token, (layers, D)."""
    return torch.cat([pool(proxy, layer) for pool, proxy, layer in zip(poolers, proxies, prompts)])


class HiCroPL(Described, IVLP):
    """Learn deep prompts of both towers that flow into each other, near frozen features of descriptions and images.

    ``CE + LAMBD [(1 - mean cos(t, g)) + (1 - mean cos(v, v0))]`` with ``t = unit(unit(t_prompted) + g)`` and
    ``v = unit(unit(v_prompted) + v0)``, in training and evaluation: g are the teacher's mean features of a class's
    descriptions, v0 its features of the images. New classes need descriptions, too.

    As in the authors' code, the maps between the towers are never learned: in each step the prompts are mapped once,
    outside of autograd, and written back; only these values get gradients. In that code the evaluation writes back as
    well, so that the model drifts with every batch that it classifies, and its accuracy depends on the batch size. Here
    an evaluation maps the stored prompts once and writes nothing. OFFICIAL True drifts as theirs.
    """

    options = {
        "N_CTX": 16,
        "CROSS_LAYER": 6,
        "CTX_INIT": "a photo of a",
        "PREC": "fp16",
        "PROMPT_DEPTH": 12,
        "TEACHER_NAME": "",
        "LAMBD": 12.0,
        "OFFICIAL": False,
        "DESCRIPTIONS": "",
    }
    allowed = {
        "CROSS_LAYER": Whole("last layer that flows from text to vision; -1: half of PROMPT_DEPTH", 1, LAYERS, (-1,)),
        "TEACHER_NAME": Text("CLIP of the frozen features, a name or a file; empty: the backbone"),
        "LAMBD": Real("weight of the distances to frozen features", 0, 1e6),
        "OFFICIAL": Flag("write the prompts back in evaluation, too: each batch changes the model, as the authors'"),
    }
    described_use = True
    official_names = (
        (r"prompt_learner\.ctx", "cross_prompts_text.0"),
        (
            r"prompt_learner\.((cross_prompts_|text2visual_|visual2text_|attn_pooling_|text_proxy_|visual_proxy_).+)",
            r"\1",
        ),
    )
    official_ignored = (r"prompt_learner\.ZS_image_encoder\..+",)

    def build_learner(self) -> FlowingPrompts:
        """Compute the frozen class texts; write the class sentences; build the prompts.

        Raises:
            ValueError: No descriptions, or a teacher of another joint width.
        """
        s = self.settings
        self.teacher = load_teacher(self, s.TEACHER_NAME)
        width, own = anatomy(self.teacher).joint_width, self.anatomy.joint_width
        if width != own:
            raise ValueError(
                f"the features of the teacher {s.TEACHER_NAME} are {width} wide and those of the backbone {own}, but "
                f"HiCroPL adds them; name another TRAINER.{self.node()}.TEACHER_NAME"
            )
        sentences = sentence_features(self.teacher, sentences_of(self))
        self.text_anchors = unit(torch.stack([unit(group).mean(dim=0) for group in sentences]))
        if self.teacher is not self.clip:
            set_precision(self.teacher, self.precision)
        ctx = self.write_sentences(s.N_CTX)
        return FlowingPrompts(self.clip, ctx, s.PROMPT_DEPTH, s.CROSS_LAYER, s.OFFICIAL)

    def begin_step(self) -> None:
        """Let the prompts flow, and store the result."""
        self.learner.write_flow()

    def text_features(self) -> Tensor:
        """Return the features of the prompted class sentences, moved towards the frozen ones, normalised, (C, d)."""
        return unit(super().text_features() + self.text_anchors)

    def image_features(self, images: Tensor) -> Tensor:
        """Return the features of the prompted images, moved towards the frozen ones, normalised, (B, d)."""
        return self.anchored_images(images)[0]

    def anchored_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return :meth:`image_features` and the teacher's features, normalised, each (B, d)."""
        with torch.no_grad():
            frozen = unit(encoders.encode_image(self.teacher, images))
        return unit(super().image_features(images) + frozen), frozen

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy, and the cosine distances of text and image features to the frozen ones."""
        text = self.class_features()
        image, frozen = self.anchored_images(batch.images)
        weight = self.settings.LAMBD
        return {
            "ce": self.cross_entropy(self.logits(image, text), batch.labels),
            "text": weight * (1 - F.cosine_similarity(text, self.text_anchors).mean()),
            "image": weight * (1 - F.cosine_similarity(image, frozen).mean()),
        }

    def classify(self, images: Tensor) -> Tensor:
        """Return the logits of images, (B, C); with OFFICIAL, change the model first."""
        if self.learner.stored and not self.learner.training:
            self.learner.write_flow()
            return self.logits(self.image_features(images), self.text_features())
        return super().classify(images)
