#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    printf("hello %s as %d:%d", VERSION, (int)getuid(), (int)getgid());
    for (int i = 1; i < argc; i++)
        printf(" %s", argv[i]);
    putchar('\n');
    return 0;
}
