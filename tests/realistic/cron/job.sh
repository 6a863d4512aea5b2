#!/bin/sh
echo "job ran as $(id -un)"
