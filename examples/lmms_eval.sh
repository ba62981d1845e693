#!/bin/sh
# lmms-eval scores an agent of ours on Video-MME and MLVU, and then our own rows once more.
#
# Two environments: OURS has this package (pip install 'paravt[train]'), THEIRS has lmms-eval 0.7.3
# and this package without its requirements (pip install --no-deps paravt). lmms-eval downloads its
# data sets to HF_HOME.
set -eu
ours=${OURS:?folder of our environment} theirs=${THEIRS:?folder of lmms-eval's environment}

# Agent, checkpoint and frame budget; any recipe of `paravt eval` will do.
cat > lmms.yaml <<END
base: paravt7
agent: {checkpoint: ${CHECKPOINT:?folder or hub name}}
evaluation: {frame_budgets: [64]}
END

"$theirs/bin/lmms-eval" --model paravt --tasks videomme,mlvu_test --log_samples \
    --output_path runs/lmms --model_args "paravt=$ours/bin/paravt,recipe=lmms.yaml,output=runs/lmms"

# The other way round: two evaluations that `paravt eval` made, compared by lmms-eval's scores.
if [ $# = 2 ]; then
    "$ours/bin/paravt" compare "$1" "$2" --lmms-eval "$theirs/bin/python" --lmms-task videomme
fi
