/* SPDX-License-Identifier: MIT
 * jail.c - a process that only computes, by a filter of system calls: whoever takes over what reads
 * a hostile file can use memory and the processor, and the descriptors that are open already. */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define MACHINE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define MACHINE AUDIT_ARCH_AARCH64
#endif

#ifdef MACHINE

/* Memory, time, threads, and what is open. */
static const int allowed[] = {
    SYS_read,
    SYS_pread64,
    SYS_readv,
    SYS_lseek,
    SYS_fstat,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_close,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_brk,
    SYS_membarrier,
    SYS_futex,
    SYS_set_robust_list,
    SYS_set_tid_address,
    SYS_rseq,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_getcpu,
    SYS_gettid,
    SYS_getpid,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_restart_syscall,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_gettimeofday,
    SYS_getrusage,
    SYS_getrandom,
    SYS_sysinfo,
    SYS_uname,
    SYS_exit,
    SYS_exit_group,
};

/* What libraries try, and do without where it is refused. */
static const int refused[] = {
    SYS_openat,     SYS_openat2,    SYS_newfstatat, SYS_statx,    SYS_faccessat,
    SYS_faccessat2, SYS_readlinkat, SYS_getdents64, SYS_getcwd,   SYS_ioctl,
    SYS_fcntl,      SYS_write,      SYS_writev,     SYS_pwrite64, SYS_prctl,
#ifdef SYS_open
    SYS_open,       SYS_stat,       SYS_lstat,      SYS_access,   SYS_readlink,
#endif
};

/* A program for the kernel, built from its end: every rule jumps over its own answer. */
struct rules {
    struct sock_filter f[256];
    int n;
};

static void add(struct rules *r, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
    if (r->n == COUNT_OF(r->f)) panic("too many rules");
    r->f[r->n++] = (struct sock_filter){ code, yes, no, k };
}

static void load(struct rules *r, size_t offset)
{
    add(r, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void answer(struct rules *r, uint32_t with) { add(r, BPF_RET | BPF_K, with, 0, 0); }

static const uint32_t REFUSE = SECCOMP_RET_ERRNO | EPERM;

static void rule(struct rules *r, int call, uint32_t with)
{
    add(r, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1);
    answer(r, with);
}

/* By the lower half of an argument: `with` where one of these bits is set, else `without`. */
static void rule_bits(struct rules *r, int call, int argument, uint32_t bits, uint32_t with,
                      uint32_t without)
{
    add(r, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 4);
    load(r, offsetof(struct seccomp_data, args) + (size_t)argument * 8);
    add(r, BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1);
    answer(r, with);
    answer(r, without);
}

/* abort() is a signal to oneself; to anybody else it is none of ours. */
static void rule_own_signal(struct rules *r)
{
    add(r, BPF_JMP | BPF_JEQ | BPF_K, SYS_tgkill, 0, 4);
    load(r, offsetof(struct seccomp_data, args));
    add(r, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)getpid(), 0, 1);
    answer(r, SECCOMP_RET_ALLOW);
    answer(r, SECCOMP_RET_KILL_PROCESS);
}

/* Limits of this process: others' would be the first argument. */
static void rule_own_limits(struct rules *r)
{
    add(r, BPF_JMP | BPF_JEQ | BPF_K, SYS_prlimit64, 0, 4);
    load(r, offsetof(struct seccomp_data, args));
    add(r, BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1);
    answer(r, SECCOMP_RET_ALLOW);
    answer(r, REFUSE);
}

static void make_rules(struct rules *r, enum jail_files files)
{
    load(r, offsetof(struct seccomp_data, arch));
    add(r, BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 1, 0);
    answer(r, SECCOMP_RET_KILL_PROCESS);
    load(r, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < COUNT_OF(allowed); i++) rule(r, allowed[i], SECCOMP_RET_ALLOW);
    rule_bits(r, SYS_mmap, 2, PROT_EXEC, REFUSE, SECCOMP_RET_ALLOW);
    rule_bits(r, SYS_mprotect, 2, PROT_EXEC, REFUSE, SECCOMP_RET_ALLOW);
    rule_bits(r, SYS_clone, 0, CLONE_THREAD, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS);
    rule(r, SYS_clone3, SECCOMP_RET_ERRNO | ENOSYS); /* its flags cannot be seen; then clone is */
    rule_own_signal(r);
    rule_own_limits(r);
    if (files == JAIL_READS_FILES) {
        rule(r, SYS_newfstatat, SECCOMP_RET_ALLOW);
        rule_bits(r, SYS_openat, 2, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC, REFUSE,
                  SECCOMP_RET_ALLOW);
    }
    for (int i = 0; i < COUNT_OF(refused); i++) rule(r, refused[i], REFUSE);
    answer(r, SECCOMP_RET_KILL_PROCESS);
}

bool jail_enter(enum jail_files files)
{
    struct rules r = { .n = 0 };
    make_rules(&r, files);
    struct sock_fprog program = { .len = (unsigned short)r.n, .filter = r.f };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

#else

bool jail_enter(enum jail_files files)
{
    (void)files;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return false;
}

#endif
