/* SPDX-License-Identifier: MIT
 * channel.c - messages between this process and one that it has forked, and open files with them.
 * The only place with a socket: a pair without a name, which nothing else can connect to. */
#include "base/base.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define FILES_MAX 4

/* Room for the files of a message, aligned as the kernel's headers of them want it. */
union control {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int[FILES_MAX]))];
};

bool channel_open(int end[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, end) == 0;
}

bool channel_send(int end, const void *message, size_t n, const int *files, int n_files)
{
    union control control;
    struct iovec bytes = { (void *)(uintptr_t)message, n };
    struct msghdr m = { .msg_iov = &bytes, .msg_iovlen = 1 };
    if (n_files > FILES_MAX) panic("%d files in a message", n_files);
    if (n_files > 0) {
        memset(&control, 0, sizeof control);
        m.msg_control = control.room;
        m.msg_controllen = CMSG_SPACE((size_t)n_files * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t)n_files * sizeof(int));
        memcpy(CMSG_DATA(c), files, (size_t)n_files * sizeof(int));
    }
    ssize_t sent;
    while ((sent = sendmsg(end, &m, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0 && errno == EINTR) continue;
    return sent == (ssize_t)n;
}

long channel_peek(int end, void *message, size_t room)
{
    struct iovec bytes = { message, room };
    struct msghdr m = { .msg_iov = &bytes, .msg_iovlen = 1 };
    ssize_t n;
    while ((n = recvmsg(end, &m, MSG_PEEK)) < 0 && errno == EINTR) continue;
    return n;
}

long channel_receive(int end, void *message, size_t room, int *files, int n_files)
{
    union control control;
    struct iovec bytes = { message, room };
    struct msghdr m = { .msg_iov = &bytes, .msg_iovlen = 1 };
    if (n_files > 0) {
        m.msg_control = control.room;
        m.msg_controllen = CMSG_SPACE((size_t)n_files * sizeof(int));
    }
    for (int i = 0; i < n_files; i++) files[i] = -1;
    ssize_t n;
    while ((n = recvmsg(end, &m, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) continue;
    struct cmsghdr *c = n > 0 && n_files > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
        memcpy(files, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
    return n;
}
