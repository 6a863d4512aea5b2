cat installed; echo "running in $MODE"
