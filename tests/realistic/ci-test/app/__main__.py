import sys

from . import square

print(square(int(sys.argv[1])))
