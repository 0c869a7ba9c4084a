"""Where every tensor lives: liveness, storage that is shared, and offsets in the arena."""

from tinydeploy.plan.arena import Placement, Plan, plan_memory
from tinydeploy.plan.kernels import KernelChoice, Kernels, choose_kernels

__all__ = ["KernelChoice", "Kernels", "Placement", "Plan", "choose_kernels", "plan_memory"]
