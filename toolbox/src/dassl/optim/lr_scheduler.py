"""Learning-rate schedules from ``cfg.OPTIM``, stepped once an epoch.

Let base be the configured learning rate, e the epoch from 0, T = MAX_EPOCH, W = WARMUP_EPOCH. In the warm-up (e < W)
the learning rate is WARMUP_CONS_LR (constant), or WARMUP_MIN_LR at e = 0 and then base * e / W (linear). After it,
WARMUP_RECOUNT starts the schedule from its index 0, so that a cosine ends above 0; otherwise from index W.
"""

from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR

from ..utils import get_most_similar_str_to_a_from_b

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]


class _BaseWarmupScheduler(LRScheduler):
    """Runs for ``warmup_epoch`` epochs, then hands over to ``successor``.

    Its own epoch count stops at the hand-over. The saved state is plain numbers: the successor's is in
    ``successor_state``, never the object, which would drag a dead copy of the optimiser along.
    """

    def __init__(self, optimizer, successor, warmup_epoch, last_epoch=-1):
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, last_epoch)

    def warmup_lrs(self) -> list[float]:
        raise NotImplementedError

    def get_lr(self):
        return self.successor.get_last_lr() if self.last_epoch >= self.warmup_epoch else self.warmup_lrs()

    def step(self, epoch=None):
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()
        else:
            super().step(epoch)

    def state_dict(self):
        state = {k: v for k, v in super().state_dict().items() if k != "successor"}
        state["successor_state"] = self.successor.state_dict()
        return state

    def load_state_dict(self, state_dict):
        """Load a state of this class or of Dassl.pytorch's, whose ``successor`` is an object.

        Raises:
            ValueError: The state has no successor's: it is of a run without warm-up.
        """
        state = dict(state_dict)
        inner = state.pop("successor_state", None)
        old = state.pop("successor", None)
        if inner is None and old is not None:
            inner = vars(old)
        if inner is None:
            raise ValueError(
                f"The saved scheduler has no warm-up (keys {sorted(state_dict)}), this run has one: set "
                f"OPTIM.WARMUP_EPOCH as in the run that wrote it"
            )
        # Only fields that exist here: the live successor keeps its own optimiser.
        for scheduler, saved in ((self.successor, inner), (self, state)):
            known = scheduler.__dict__.keys() - {"optimizer", "successor"}
            scheduler.__dict__.update({k: v for k, v in saved.items() if k in known})


class ConstantWarmupScheduler(_BaseWarmupScheduler):
    """Warm-up at one learning rate, ``cons_lr``, for all groups."""

    def __init__(self, optimizer, successor, warmup_epoch, cons_lr, last_epoch=-1):
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lrs(self):
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(_BaseWarmupScheduler):
    """Warm-up from ``min_lr`` in equal steps to the base learning rate."""

    def __init__(self, optimizer, successor, warmup_epoch, min_lr, last_epoch=-1):
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lrs(self):
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def build_lr_scheduler(optimizer, optim_cfg):
    """Construct the schedule that ``optim_cfg`` (``cfg.OPTIM``) describes.

    Raises:
        ValueError: LR_SCHEDULER or WARMUP_TYPE is unknown.
        TypeError: STEPSIZE does not hold integers.
    """
    name, stepsize = optim_cfg.LR_SCHEDULER, optim_cfg.STEPSIZE
    if name not in AVAI_SCHEDS:
        raise ValueError(
            f"OPTIM.LR_SCHEDULER {name!r} is not in this toolbox; available: {AVAI_SCHEDS}. Did you "
            f"mean {get_most_similar_str_to_a_from_b(name, AVAI_SCHEDS)!r}?"
        )
    if name == "single_step":
        step = stepsize[-1] if isinstance(stepsize, (list, tuple)) else stepsize
        if not isinstance(step, int):
            raise TypeError(f"OPTIM.STEPSIZE must end with an integer for single_step; got {stepsize!r}")
        scheduler = StepLR(optimizer, step_size=step if step > 0 else optim_cfg.MAX_EPOCH, gamma=optim_cfg.GAMMA)
    elif name == "multi_step":
        if not isinstance(stepsize, (list, tuple)):
            raise TypeError(f"OPTIM.STEPSIZE must be a list of epochs for multi_step; got {stepsize!r}")
        scheduler = MultiStepLR(optimizer, milestones=stepsize, gamma=optim_cfg.GAMMA)
    else:
        scheduler = CosineAnnealingLR(optimizer, float(optim_cfg.MAX_EPOCH))

    if optim_cfg.WARMUP_EPOCH <= 0:
        return scheduler
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = optim_cfg.WARMUP_EPOCH
    if optim_cfg.WARMUP_TYPE == "constant":
        return ConstantWarmupScheduler(optimizer, scheduler, optim_cfg.WARMUP_EPOCH, optim_cfg.WARMUP_CONS_LR)
    if optim_cfg.WARMUP_TYPE == "linear":
        return LinearWarmupScheduler(optimizer, scheduler, optim_cfg.WARMUP_EPOCH, optim_cfg.WARMUP_MIN_LR)
    raise ValueError(f"OPTIM.WARMUP_TYPE {optim_cfg.WARMUP_TYPE!r} is not one of constant, linear")
