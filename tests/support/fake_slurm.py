"""Commands of a scheduler that are none: what they were asked is in $FAKE."""

from __future__ import annotations

SBATCH = """#!/bin/sh
# a scheduler that accepts and never starts anything
printf '%s\\n' "$*" >>"$FAKE/calls"
if [ -e "$FAKE/refuse" ]; then echo "sbatch: error: Invalid account or partition" >&2; exit 1; fi
count=$(cat "$FAKE/count" 2>/dev/null || echo 700)
echo $((count + 1)) >"$FAKE/count"
echo "$((count + 1));cluster"
"""
SQUEUE = """#!/bin/sh
echo "$*" >>"$FAKE/asked"
if [ -e "$FAKE/down" ]; then echo "slurm_load_jobs error: Unable to contact slurm controller" >&2
exit 1; fi
cat "$FAKE/queue" 2>/dev/null
exit 0
"""
