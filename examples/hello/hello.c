#include <stdio.h>

int main(void)
{
    puts("Hello from an image that kiln built.");
    return 0;
}
