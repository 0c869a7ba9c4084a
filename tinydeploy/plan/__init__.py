"""Where every tensor lives: liveness, storage that is shared, and offsets in the arena."""

from tinydeploy.plan.arena import Placement, Plan, plan_memory

__all__ = ["Placement", "Plan", "plan_memory"]
