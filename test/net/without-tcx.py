"""Starts a program for which the kernel has no TCX: links and questions about its hooks are refused
with EINVAL, as kernels before 6.6 refuse them.

    without-tcx.py PROGRAM [ARGUMENT...]
"""

import errno
import os
import sys

import seccomp

# include/uapi/linux/bpf.h: enum bpf_cmd
BPF_PROG_QUERY = 16
BPF_LINK_CREATE = 28

rules = seccomp.SyscallFilter(seccomp.ALLOW)
for command in (BPF_PROG_QUERY, BPF_LINK_CREATE):
    rules.add_rule(seccomp.ERRNO(errno.EINVAL), "bpf", seccomp.Arg(0, seccomp.EQ, command))
rules.load()
os.execvp(sys.argv[1], sys.argv[1:])
