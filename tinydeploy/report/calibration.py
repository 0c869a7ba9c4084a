"""The report of `calibrate`: each reading before and after, and what the errors are worth."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from tinydeploy.calibration import Fit
from tinydeploy.report.tables import text_table


def calibration_report(fit: Fit, board: str, output: str) -> RenderableType:
    table = text_table(f"{board}, calibrated", "model")
    for name in ("measured ms", "before ms", "error", "after ms", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = zip(fit.readings, fit.before_ms, fit.before_pct, fit.after_ms, fit.after_pct, strict=True)
    for reading, before, before_pct, after, after_pct in rows:
        table.add_row(
            reading.model,
            f"{reading.measured_ms:,.4g}",
            f"{before:,.4g}",
            f"{before_pct:+.1f} %",
            f"{after:,.4g}",
            f"{after_pct:+.1f} %",
        )
    fitted = {"flash": f"waits for flash x {fit.flash_factor:.3g}"}
    fitted["branch"] = f"refills behind taken branches x {fit.branch_factor:.3g}"
    lines = [Text(f"fitted: {', '.join(fitted[p] for p in fit.parameters)}")]
    if fit.left_out_pct:
        worst = max(map(abs, fit.left_out_pct))
        mean = sum(map(abs, fit.left_out_pct)) / len(fit.left_out_pct)
        lines.append(
            Text(
                f"each reading predicted by a fit on the others: mean error {mean:.1f} %, worst {worst:.1f} %"
            )
        )
    else:
        told = "As many readings as factors: the errors after say nothing; one more reading would."
        lines.append(Text(told, style="dim"))
    lines.append(Text(f"{output}: use it with --target {output}"))
    return Group(table, *lines)
