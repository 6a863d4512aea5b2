#!/usr/bin/perl
use strict;
use warnings;
printf "report by %s\n", scalar getpwuid($<);
