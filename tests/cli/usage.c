/* SPDX-License-Identifier: MIT
 * usage.c - runs a command and says on its last line what it took: "usage: <exit code> <seconds of
 * the processor> <MiB at most>". The code of an end by a signal is 128 and its number. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct rusage u;
    int status;
    if (argc < 2) return 2;
    pid_t child = fork();
    if (child == 0) {
        execv(argv[1], argv + 1);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &u) != child) return 1;
    double seconds = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                     (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    printf("\nusage: %d %.2f %ld\n",
           WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), seconds,
           u.ru_maxrss / 1024);
    return 0;
}
