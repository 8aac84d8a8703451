"""The recordings of the official implementations (tests/golden/README.md), and trainers in their state."""

import functools
import json
import tempfile
from pathlib import Path

import golden_clip
import numpy as np
import torch
from support import decode, node_of, rename

LOSS, LOGITS, WEIGHTS, GRADS = 5e-5, 2e-4, 1e-5, 2e-4
FOLDER = Path(__file__).parent / "golden"
TRAINERS = {
    "zeroshotclip": "ZeroshotCLIP",
    "coop": "CoOp",
    "ivlp": "IVLP",
    "cocoop": "CoCoOp",
    "kgcoop": "KgCoOp",
    "vpt": "VPT",
    "maple": "MaPLe",
    "promptsrc": "PromptSRC",
    "tac": "TAC",
    "tac_dropout": "TAC",
    "coprompt": "CoPrompt",
    "hicropl": "HiCroPL",
    "promptkd": "PromptKD",
    "clip_adapter": "CLIPAdapter",
    "taskres": "TaskRes",
    "clip_lora_p0": "CLIPLoRA",
    "clip_lora": "CLIPLoRA",
    "clip_lora_zero": "CLIPLoRA",
    "tip_adapter_f": "TipAdapter",
    "mmrl": "MMRL",
    "mmrlpp": "MMRLpp",
    "mma": "MMA",
    "atprompt": "ATPrompt",
    "atprompt_multitoken": "ATPrompt",
    "dept": "DePT",
}


class Recording:
    """A recording with its entries below a path as dicts; what it has in common with another lies there alone."""

    def __init__(self, name):
        # AdamW divides by the root of tiny second moments: weights with gradients near rounding noise go either way.
        self.weights = 5e-4 if name.startswith("clip_lora") else WEIGHTS
        arrays = dict(np.load(FOLDER / f"{name}.npz"))
        self.info = json.loads(arrays.pop("json").tobytes())
        for other, keys in self.info.get("borrowed", {}).items():
            with np.load(FOLDER / f"{other}.npz") as file:
                arrays.update({key: file[key] for key in keys})
        tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
        self.tensors = {key: value.float() if value.dtype == torch.half else value for key, value in tensors.items()}
        self.steps = [{**step, **self.below(f"iters/{i}/")} for i, step in enumerate(self.info["iters"])]

    def __getitem__(self, key):
        return self.tensors[key]

    def __contains__(self, key):
        return key in self.tensors

    def below(self, prefix):
        """Return the entries whose name starts with ``prefix``, without it."""
        return {key[len(prefix) :]: value for key, value in self.tensors.items() if key.startswith(prefix)}


def start(name, build, subsample="base"):
    """Build the trainer of a recording and give it the recorded start."""
    recording = Recording(name)
    node = f"TRAINER.{node_of(TRAINERS[name])}"
    pairs = [x for key, value in recording.info["config"]["node"].items() for x in (f"{node}.{key}", value)]
    if name == "tac":
        pairs += [f"{node}.IMAGE_DROPOUT", 0.0, f"{node}.TARGET_DROPOUT", 0.0]
    pairs += ["DATALOADER.K_TRANSFORMS", recording.info["config"]["K_TRANSFORMS"]]
    pairs += [x for key, value in recording.info["config"]["OPTIM"].items() for x in (f"OPTIM.{key}", value)]
    if name == "promptkd":
        pairs += [x for key, value in teacher_files().items() for x in (f"{node}.{key}", value)]
    trainer = build(TRAINERS[name], "DATASET.SUBSAMPLE_CLASSES", subsample, *pairs)
    assert list(trainer.classnames) == recording.info[f"classnames_{subsample}"]

    def there(key):
        return recording[key].to(trainer.device)

    weights = rename(trainer, {**recording.below("init_trainable/"), **recording.below("init_buffers/")})
    if "topk" in recording:  # the recording's class descriptions are not at hand, what came of them is
        weights["centers"] = recording["topk"]
    if weights and subsample == "base":
        if "topk" in recording:
            trainer.text_anchors = torch.nn.functional.normalize(there("fixed_embeddings"), dim=-1)
        missing = [key for key, _ in trainer.learner.named_parameters() if key not in weights]
        assert not missing, f"the recording has no start of {missing}"
        trainer.learner.load_state_dict({**trainer.learner.state_dict(), **weights})  # buffers are the trainer's own
    if "description_features" in recording:
        trainer.description_features = there("description_features")
    if "fixed_embeddings_new" in recording:
        trainer.text_anchors = there("fixed_embeddings" if subsample == "base" else "fixed_embeddings_new")
    return trainer, recording


@functools.cache
def teacher_files():
    """Write the teacher of PromptKD's recording: its CLIP, and its prompts in the official layout."""
    recording, folder = Recording("promptkd"), Path(tempfile.mkdtemp())
    torch.save(golden_clip.state_dict(seed=3, vision=256, text=192, joint=192), folder / "clip.pt")
    torch.save({"state_dict": recording.below("teacher_prompts/")}, folder / "prompts.pth.tar")
    return {"TEACHER_NAME": str(folder / "clip.pt"), "TEACHER_MODEL": str(folder / "prompts.pth.tar")}


def logits(trainer, images):
    """Logits in evaluation mode."""
    trainer.set_model_mode("eval")
    with torch.no_grad(), trainer.fixed_classes():
        return trainer.classify(decode(images).to(trainer.device)).cpu()


def official_state(trainer, recording):
    """Fill the recorded names of an official checkpoint: learned entries as recorded, others with other values."""
    learned = {**recording.below("init_trainable/"), **recording.below("final_trainable/")}
    learned.update(recording.below("final_buffers/"))
    learned.update({name: learned[same] for name, same in recording.info.get("aliases", {}).items()})
    inner = {name.partition(".")[2]: value for name, value in learned.items()}  # of a learner registered alone
    learned.update({name: value for name, value in inner.items() if name in recording.info["state_keys"]})
    if "topk" in recording:
        learned.update({"topk": recording["topk"], "prompt_learner.topk": recording["topk"]})
    return {name: learned.get(name, torch.zeros(1)) for name in recording.info["state_keys"]}


def write_official(folder, name, trainer):
    """Write a checkpoint in the official layout, the whole model in it."""
    recording = Recording(name)
    path = folder / recording.info["checkpoint"]
    path.parent.mkdir(parents=True)
    torch.save(
        {
            "state_dict": official_state(trainer, recording),
            "epoch": 2,
            "optimizer": None,
            "scheduler": None,
            "val_result": None,
        },
        path,
    )
    (path.parent / "checkpoint").write_text(path.name + "\n")
    return path
