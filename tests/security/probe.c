/* What a process in a container has and may do, as JSON: run inside by test_defaults.py, which judges it.
 *
 * Asks the kernel and changes nothing: a call that ought to be refused is made so that it would fail harmlessly
 * if it were let through (a null pointer, a descriptor of -1), and its errno tells which of the two it was.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* ---- JSON ---- */

static int first = 1;

static void separate(void) {
    if (!first) putchar(',');
    first = 0;
}

static void string(const char *text, size_t length) {
    putchar('"');
    for (size_t i = 0; i < length; i++) {
        unsigned char c = text[i];
        if (c == '"' || c == '\\') printf("\\%c", c);
        else if (c < 0x20 || c > 0x7e) printf("\\u%04x", c);
        else putchar(c);
    }
    putchar('"');
}

static void key(const char *name) {
    separate();
    string(name, strlen(name));
    putchar(':');
}

static void open_object(const char *name) {
    key(name);
    putchar('{');
    first = 1;
}

static void close_object(void) {
    putchar('}');
    first = 0;
}

static void put(const char *name, const char *value) {
    key(name);
    string(value, strlen(value));
}

static void number(const char *name, long value) {
    key(name);
    printf("%ld", value);
}

/* The errno of a call by its name, "ok" if it went well. */
static void result(const char *name, long returned) {
    int error = errno;
    put(name, returned >= 0 ? "ok" : strerrorname_np(error) ? strerrorname_np(error) : "?");
}

/* ---- what it is ---- */

static void file(const char *name, const char *path) {
    static char text[1 << 20];
    size_t length = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return result(name, -1);
    for (ssize_t count; (count = read(fd, text + length, sizeof text - length)) > 0;) length += count;
    close(fd);
    key(name);
    string(text, length);
}

static void descriptors(void) {
    DIR *folder = opendir("/proc/self/fd");
    open_object("descriptors");
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char target[4096] = "";
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(folder)) continue;
        if (readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1) > 0) put(entry->d_name, target);
    }
    close_object();
    if (folder) closedir(folder);
}

static void itself(void) {
    char raw[4096] = "";
    syscall(SYS_getcwd, raw, sizeof raw);
    put("cwd", raw);
    mode_t mask = umask(0);
    umask(mask);
    number("umask", mask);
    number("pid", getpid());
    number("session", getsid(0));
    number("personality", syscall(SYS_personality, 0xffffffffUL));
    file("status", "/proc/self/status");
    file("uid_map", "/proc/self/uid_map");
    file("gid_map", "/proc/self/gid_map");
    file("setgroups", "/proc/self/setgroups");
    file("limits", "/proc/self/limits");
    file("mountinfo", "/proc/self/mountinfo");
    file("cgroup", "/proc/self/cgroup");
    file("unix", "/proc/net/unix");
    file("oom_score_adj", "/proc/self/oom_score_adj");
    file("environ", "/proc/self/environ");
    descriptors();
}

/* ---- files ---- */

/* "absent", "empty", "readable" or why it can't be read. */
static void readable(const char *path) {
    char byte;
    struct stat status;
    if (lstat(path, &status) < 0) return put("read", errno == ENOENT ? "absent" : strerrorname_np(errno));
    if (S_ISDIR(status.st_mode)) {
        DIR *folder = opendir(path);
        int count = 0;
        if (!folder) return result("read", -1);
        while (readdir(folder)) count++;
        closedir(folder);
        return put("read", count > 2 ? "readable" : "empty");
    }
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return result("read", -1);
    ssize_t count = read(fd, &byte, 1);
    put("read", count > 0 ? "readable" : count == 0 ? "empty" : errno == EAGAIN ? "readable" : strerrorname_np(errno));
    close(fd);
}

/* Whether something could be changed: a file opened for writing (nothing is written), a folder made and removed. */
static void writable(const char *path) {
    struct stat status;
    char inside[512];
    if (lstat(path, &status) < 0) return put("write", "absent");
    if (S_ISDIR(status.st_mode)) {
        snprintf(inside, sizeof inside, "%s/pyrt-probe", path);
        int made = mkdir(inside, 0700);
        result("write", made);
        if (made == 0) rmdir(inside);
        return;
    }
    /* What lies under a mask takes what is written to it, as /dev/null does. */
    if (S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3)) return put("write", "masked");
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    result("write", fd);
    if (fd >= 0) close(fd);
}

static const char *const PATHS[] = {
    "/", "/tmp", "/proc", "/sys", "/dev", "/dev/shm", "/dev/pts", "/dev/mqueue", "/sys/fs/cgroup",
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/key-users",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/irq/default_smp_affinity", "/proc/sys", "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/hotplug", "/proc/sys/kernel/poweroff_cmd", "/proc/sys/vm/panic_on_oom",
    "/proc/sys/vm/drop_caches", "/proc/sys/fs/binfmt_misc", "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/net/ipv4/ip_forward", "/proc/kmsg", "/proc/kallsyms", "/proc/kpagemap", "/proc/kpageflags",
    "/proc/mtrr", "/proc/slabinfo", "/proc/vmallocinfo", "/proc/pagetypeinfo", "/proc/iomem", "/proc/config.gz",
    "/sys/firmware", "/sys/fs/selinux", "/sys/fs/bpf", "/sys/kernel/uevent_helper", "/sys/kernel/debug",
    "/sys/kernel/tracing", "/sys/kernel/security", "/sys/kernel/vmcoreinfo", "/sys/module", "/sys/power/state",
    "/sys/devices/virtual/powercap", "/sys/devices/system/cpu/cpu0/thermal_throttle",
    "/sys/class/net", "/sys/block", "/sys/bus/pci/rescan",
};

static void paths(void) {
    open_object("paths");
    for (size_t i = 0; i < sizeof PATHS / sizeof *PATHS; i++) {
        open_object(PATHS[i]);
        readable(PATHS[i]);
        writable(PATHS[i]);
        close_object();
    }
    close_object();
}

/* ---- devices ---- */

static void node(const char *name, mode_t kind, int major, int minor) {
    static const char *const FOLDERS[] = {"/tmp", "/dev", "/dev/shm"};
    char path[64], opened[64];
    open_object(name);
    for (size_t i = 0; i < sizeof FOLDERS / sizeof *FOLDERS; i++) {
        snprintf(path, sizeof path, "%s/pyrt-node", FOLDERS[i]);
        snprintf(opened, sizeof opened, "opened in %s", FOLDERS[i]);
        int made = mknod(path, kind | 0666, makedev(major, minor));
        result(FOLDERS[i], made);
        if (made < 0) continue;
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        result(opened, fd);
        if (fd >= 0) close(fd);
        unlink(path);
    }
    close_object();
}

static void devices(void) {
    static const char *const THERE[] = {"null", "zero", "full", "random", "urandom", "tty", "ptmx"};
    open_object("mknod");
    node("mem", S_IFCHR, 1, 1);
    node("port", S_IFCHR, 1, 4);
    node("kmsg", S_IFCHR, 1, 11);
    node("sda", S_IFBLK, 8, 0);
    node("vda", S_IFBLK, 254, 0);
    node("loop0", S_IFBLK, 7, 0);
    node("kvm", S_IFCHR, 10, 232);
    node("fuse", S_IFCHR, 10, 229);
    node("tun", S_IFCHR, 10, 200);
    node("null", S_IFCHR, 1, 3);
    node("whiteout", S_IFCHR, 0, 0);
    close_object();
    open_object("devices");
    for (size_t i = 0; i < sizeof THERE / sizeof *THERE; i++) {
        char path[64];
        snprintf(path, sizeof path, "/dev/%s", THERE[i]);
        int fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        result(THERE[i], fd);
        if (fd >= 0) close(fd);
    }
    close_object();
    DIR *folder = opendir("/dev");
    open_object("dev");
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        struct stat status;
        char kind[64];
        if (entry->d_name[0] == '.' || fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0) continue;
        int device = S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode);
        snprintf(kind, sizeof kind, "%o %u:%u", status.st_mode, device ? major(status.st_rdev) : 0,
                 device ? minor(status.st_rdev) : 0);
        put(entry->d_name, kind);
    }
    close_object();
    if (folder) closedir(folder);
}

/* ---- system calls ---- */

/* Makes the call in a child, which a namespace, a tracer or a signal may change for good. */
static void aside(const char *name, long (*call)(void)) {
    struct { long returned; int error; } said = {-1, 0};
    int status, both[2];
    if (pipe2(both, O_CLOEXEC) < 0) return;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        said.returned = call();
        said.error = errno;
        if (write(both[1], &said, sizeof said) < 0) _exit(1);
        _exit(0);
    }
    close(both[1]);
    ssize_t heard = read(both[0], &said, sizeof said);
    close(both[0]);
    waitpid(child, &status, 0);
    if (heard != sizeof said) return put(name, WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : "died");
    errno = said.error;
    result(name, said.returned);
}

static long new_user_namespace(void) { return syscall(SYS_unshare, CLONE_NEWUSER); }
static long new_mount_namespace(void) { return syscall(SYS_unshare, CLONE_NEWNS); }
static long new_user_and_network(void) { return syscall(SYS_unshare, CLONE_NEWUSER | CLONE_NEWNET); }
static long new_files(void) { return syscall(SYS_unshare, CLONE_FILES); }
static long clone_user_namespace(void) {
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return child;
}
static long trace_me(void) { return ptrace(PTRACE_TRACEME, 0, 0, 0); }
static long trace_first(void) { return ptrace(PTRACE_SEIZE, getppid() == 1 ? 1 : getppid(), 0, 0); }
static long set_root(void) { return chroot("/"); }

#ifdef __x86_64__
/* getpid of the 32-bit table, which a filter of 64-bit numbers would take for writev. */
static long old_interrupt(void) {
    long returned;
    __asm__ volatile("int $0x80" : "=a"(returned) : "a"(20L), "b"(0L), "c"(0L), "d"(0L) : "memory");
    if (returned < 0) errno = -returned;
    return returned < 0 ? -1 : returned;
}
static long x32(void) { return syscall(0x40000000 | SYS_getpid); }
#endif

#define CALL(name, ...) result(#name, syscall(SYS_##name, ##__VA_ARGS__))

static void calls(void) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    open_object("calls");
    CALL(mount, 0, 0, 0, 0, 0);
    CALL(umount2, 0, 0);
    CALL(pivot_root, 0, 0);
    CALL(open_tree, -1, "", 0);
    CALL(move_mount, -1, "", -1, "", 0);
    CALL(fsopen, 0, 0);
    CALL(fsconfig, -1, 0, 0, 0, 0);
    CALL(fsmount, -1, 0, 0);
    CALL(fspick, -1, 0, 0);
    CALL(mount_setattr, -1, "", 0, 0, 0);
    CALL(setns, -1, 0);
    CALL(clone3, 0, 0);
    CALL(sethostname, 0, 1);
    CALL(setdomainname, 0, 1);
    CALL(bpf, 0, 0, 0);
    CALL(perf_event_open, 0, 0, 0, 0, 0);
    CALL(keyctl, 0, 0, 0, 0, 0);
    CALL(add_key, 0, 0, 0, 0, 0);
    CALL(request_key, 0, 0, 0, 0);
    CALL(userfaultfd, 0);
    CALL(io_uring_setup, 0, 0);
    CALL(io_uring_enter, -1, 0, 0, 0, 0, 0);
    CALL(io_uring_register, -1, 0, 0, 0);
    CALL(kexec_load, 0, 0, 0, 0xffff0000);
    CALL(kexec_file_load, -1, -1, 0, 0, 0);
    CALL(init_module, 0, 0, 0);
    CALL(finit_module, -1, 0, 0);
    CALL(delete_module, 0, 0);
    CALL(reboot, 0, 0, 0, 0);
    CALL(swapon, 0, 0);
    CALL(swapoff, 0);
    CALL(settimeofday, 0, 0);
    CALL(clock_settime, 0, 0);
    CALL(acct, "/nowhere");
    CALL(quotactl, 0, 0, 0, 0);
    CALL(syslog, 10, 0, 0);
    CALL(vhangup);
    CALL(open_by_handle_at, -1, 0, 0);
    CALL(name_to_handle_at, -1, "", 0, 0, 0);
    CALL(process_vm_readv, 1, 0, 0, 0, 0, 0);
    CALL(process_vm_writev, 1, 0, 0, 0, 0, 0);
    CALL(pidfd_getfd, -1, 0, 0);
    CALL(process_madvise, -1, 0, 0, 0, 0);
    CALL(kcmp, 1, 1, 0, 0, 0);
    CALL(lookup_dcookie, 0, 0, 0);
    CALL(fanotify_init, 0, 0);
    CALL(move_pages, 0, 0, 0, 0, 0, 0);
    CALL(mbind, 0, 0, 0, 0, 0, 0);
    CALL(personality, 0x0040000);
#ifdef __x86_64__
    CALL(iopl, 3);
    CALL(ioperm, 0, 1, 1);
    CALL(uselib, 0);
    CALL(ustat, 0, 0);
    CALL(sysfs, 3);
    CALL(create_module, 0, 0);
    CALL(nfsservctl, 0, 0, 0);
    CALL(_sysctl, 0);
    aside("int80", old_interrupt);
    aside("x32", x32);
#endif
    result("number 1000", syscall(1000));
    result("number -1", syscall(-1));
    aside("unshare CLONE_NEWUSER", new_user_namespace);
    aside("unshare CLONE_NEWNS", new_mount_namespace);
    aside("unshare CLONE_NEWUSER|CLONE_NEWNET", new_user_and_network);
    aside("unshare CLONE_FILES", new_files);
    aside("clone CLONE_NEWUSER", clone_user_namespace);
    aside("chroot", set_root);
    aside("ptrace TRACEME", trace_me);
    aside("ptrace parent", trace_first);
    result("ioctl TIOCSTI", ioctl(null, TIOCSTI, "x"));
    result("ioctl TIOCSTI above", syscall(SYS_ioctl, null, 0x100000000UL | TIOCSTI, "x"));
    result("ioctl TIOCLINUX", ioctl(null, TIOCLINUX, "\x03"));
    result("setresuid", setresuid(-1, -1, -1));
    close_object();
    close(null);
}

static void families(void) {
    static const struct { const char *name; int type; } TYPES[] = {
        {"datagram", SOCK_DGRAM}, {"stream", SOCK_STREAM}, {"seqpacket", SOCK_SEQPACKET}, {"raw", SOCK_RAW}};
    open_object("families");
    for (int family = 0; family < 48; family++) {
        char name[16];
        snprintf(name, sizeof name, "%d", family);
        open_object(name);
        for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
            int fd = socket(family, TYPES[i].type | SOCK_CLOEXEC, 0);
            result(TYPES[i].name, fd);
            if (fd >= 0) close(fd);
        }
        close_object();
    }
    close_object();
}

int main(void) {
    putchar('{');
    itself();
    paths();
    devices();
    calls();
    families();
    puts("}");
    return 0;
}
