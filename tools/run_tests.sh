#!/bin/bash
# Runs the tests in parts and prints what each part took.
#
#   tools/run_tests.sh quick          what `make test` runs: unit and parity tests, smoke tests of the nodes
#   tools/run_tests.sh all            everything: also the slow unit tests, all of test/graph, test/faults and test/build
#   tools/run_tests.sh PATH...        everything in these paths
#
# Two workers share the test files; tests that are marked alone follow one by one. Each part has a time limit, so that
# a hang becomes a failure. A part that fails does not keep the next one from running; the exit code says if any did.
cd "$(dirname "$0")/.." || exit 2
workers=(-n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 4)
failed=()

part() { # NAME LIMIT_S ARGUMENT...
    local name=$1 limit=$2 start=$SECONDS code
    shift 2
    echo "== $name"
    timeout --signal=INT --kill-after=60 "$limit" .venv/bin/python -m pytest "$@"
    code=$?
    [ $code = 124 ] && echo "== $name: not finished after $limit s"
    [ $code = 0 ] || [ $code = 5 ] || failed+=("$name") # 5: no test is selected
    echo "== $name: $((SECONDS - start)) s"
}

case $1 in
quick)
    part unit 900 "${workers[@]}" -m "not slow and not alone" test/unit test/parity
    part graph 600 "${workers[@]}" -m "smoke and not alone" test/graph
    ;;
all)
    part unit 1200 "${workers[@]}" -m "not alone" test/unit test/parity
    part graph 1800 "${workers[@]}" -m "not alone" test/build test/faults test/graph
    part alone 900 -m alone test/faults
    ;;
*)
    part tests 3600 "${workers[@]}" -m "not alone" "$@"
    part alone 1800 -m alone "$@"
    ;;
esac
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
