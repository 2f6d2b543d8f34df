/* The floor: the container that `pyrt run` makes by default, made with as few system calls as we know how.
 *
 * It is what every time in the benches is divided by, so it leaves out nothing that a container of pyrt's has (user,
 * pid, mount, net, ipc, uts and cgroup namespaces, a layered root through idmaps, limits, masks, capabilities, seccomp)
 * and does nothing besides: no image store, no journal, no options, no recovery. It trusts its root file system, which
 * a runtime may not.
 *
 *     floor                                        child
 *       | cgroups                                    .
 *       | ---- clone3: shared memory and files ----> | joins cgroups, loopback, host name, proc, sysfs
 *       | id maps, idmapped overlay, /dev, files     |
 *       | ---- gate MOUNTS ------------------------> | pivot_root, mounts, masks, capabilities, seccomp
 *       |                                            | execve
 *       | <--- the program prints its clock -------- |
 *
 * Memory and the table of descriptors are shared until execve, so that cloning copies no page table and what one
 * side opens the other has. Therefore the child calls the kernel directly: errno and malloc are its parent's.
 *
 * Each line on standard input asks for one container, each answer is a line of JSON: nanoseconds since the request.
 * With --at-once N --count M it makes M of them with N processes and prints how long that took; with --keep N it makes
 * N that stay, says so, and ends them when its standard input ends.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/if.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MNT_DETACH = 2, MANY = 512, IDS = 65536, BASE = 1 << 30, PIDS = 1024, STACK = 64 << 10, STEPS = 32 };
#define PLAIN (MS_NOSUID | MS_NODEV | MS_NOEXEC)
#define PLAIN_ATTRIBUTES (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
/* CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID NET_BIND_SERVICE: what pyrt leaves a container. */
#define KEPT 0x4fbULL

/* ---- system calls without errno -------------------------------------------------------------------------------- */

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#define SYS(name, a, b, c, d, e, f) \
    call(SYS_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

static int complaints = 2;

static void refuse(const char *what, long error)
{
    char text[256];
    int length = snprintf(text, sizeof text, "floor: %s: %s\n", what, strerrordesc_np((int)-error));
    SYS(write, complaints, text, length, 0, 0, 0);
    SYS(exit_group, 125, 0, 0, 0, 0, 0);
}

static long must(const char *what, long result)
{
    if (result < 0)
        refuse(what, result);
    return result;
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* ---- what is asked for, and what is found once ------------------------------------------------------------------ */

enum ahead { NOTHING, NAMESPACES, EVERYTHING };

static struct {
    bool user, network, many;
    enum ahead ahead; /* what is done before the clock starts */
    const char *hierarchies[MANY];
    bool unified;
    int hierarchy_count, lower_count;
    const char *lowers[MANY];
    const char *spares;
    const char *filter;
    char **program;
} asked = {.user = true, .network = true};

static int lowers[MANY], groups[MANY], spares, null_device, processes;
static struct sock_fprog filter;
static const char *views[MANY];

/* Everything that differs from one container to the next. */
static struct {
    int overlay, dev, cgroup_folder, proc, sysfs, files[3], members[MANY], output, unneeded[MANY], unneeded_count;
    char name[16];
    volatile uint32_t gate, reached;
} one;

enum { CLOSED, MOUNTS, RUN };

static struct steps {
    struct { const char *name; int64_t at; } step[STEPS];
    int count;
} parents, childs;

#define STEP(side, text) \
    ((side).step[(side).count].name = (text), (side).step[(side).count++].at = now())

static void open_gate(volatile uint32_t *gate, uint32_t value)
{
    __atomic_store_n(gate, value, __ATOMIC_SEQ_CST);
    SYS(futex, gate, FUTEX_WAKE, 1, 0, 0, 0);
}

static void wait_at(volatile uint32_t *gate, uint32_t value)
{
    uint32_t seen;
    while ((seen = __atomic_load_n(gate, __ATOMIC_SEQ_CST)) < value)
        SYS(futex, gate, FUTEX_WAIT, seen, 0, 0, 0);
}

static void write_file(int directory, const char *name, const char *text)
{
    int file = (int)must(name, SYS(openat, directory, name, O_WRONLY | O_CLOEXEC, 0, 0, 0));
    must(name, SYS(write, file, text, strlen(text), 0, 0, 0));
    SYS(close, file, 0, 0, 0, 0, 0);
}

/* A mount that only the making needs. Whoever closes the last descriptor of a detached mount waits for an RCU grace
 * period. Where throughput counts these go with the old root instead, all of them in one: that takes some time more
 * until the program runs, and makes twice as many containers a second. */
static int needed_only_now(int tree)
{
    return one.unneeded[one.unneeded_count++] = tree;
}

/* ---- the parent's part ------------------------------------------------------------------------------------------ */

static int new_context(const char *type)
{
    return (int)must(type, SYS(fsopen, type, FSOPEN_CLOEXEC, 0, 0, 0, 0));
}

static void configure(int context, const char *key, const char *value)
{
    must(key, SYS(fsconfig, context, FSCONFIG_SET_STRING, key, value, 0, 0));
}

static int new_mount(int context, unsigned attributes)
{
    must("new mount", SYS(fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0, 0));
    int mount = (int)must("new mount", SYS(fsmount, context, FSMOUNT_CLOEXEC, attributes, 0, 0, 0));
    SYS(close, context, 0, 0, 0, 0, 0);
    return mount;
}

static int clone_tree(int directory, const char *name)
{
    return (int)must(name, SYS(open_tree, directory, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH, 0, 0, 0));
}

/* pids.max is the container's own; rules on devices it inherits from the group above. */
static void make_groups(void)
{
    char limit[16];
    snprintf(limit, sizeof limit, "%d", PIDS);
    for (int index = 0; index < asked.hierarchy_count; index++) {
        must("cgroup", SYS(mkdirat, groups[index], one.name, 0755, 0, 0, 0));
        char path[64];
        snprintf(path, sizeof path, "%s/pids.max", one.name);
        if (asked.unified || !strcmp(views[index], "pids"))
            write_file(groups[index], path, limit);
        snprintf(path, sizeof path, "%s/tasks", one.name);
        int flags = (asked.unified ? O_RDONLY | O_DIRECTORY : O_WRONLY) | O_CLOEXEC;
        const char *member = asked.unified ? one.name : path;
        one.members[index] = (int)must(path, SYS(openat, groups[index], member, flags, 0, 0, 0));
    }
    STEP(parents, "cgroups");
}

static void map_ids(pid_t child)
{
    char path[64], map[64];
    snprintf(map, sizeof map, "0 %d %d", BASE, IDS);
    snprintf(path, sizeof path, "%d/uid_map", child);
    write_file(processes, path, map);
    snprintf(path, sizeof path, "%d/gid_map", child);
    write_file(processes, path, map);
    STEP(parents, "id maps");
}

static int through_idmap(int tree, int namespace)
{
    struct mount_attr idmap = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)namespace};
    must("idmap", SYS(mount_setattr, tree, "", AT_EMPTY_PATH, &idmap, sizeof idmap, 0));
    return tree;
}

static void make_overlay(pid_t child)
{
    int namespace = -1, context = new_context("overlay");
    if (asked.user) {
        char path[64];
        snprintf(path, sizeof path, "%d/ns/user", child);
        namespace = (int)must(path, SYS(openat, processes, path, O_RDONLY | O_CLOEXEC, 0, 0, 0));
    }
    for (int index = 0; index < asked.lower_count; index++) {
        int layer = lowers[index];
        if (asked.user)
            layer = needed_only_now(through_idmap(clone_tree(lowers[index], ""), namespace));
        must("lowerdir+", SYS(fsconfig, context, FSCONFIG_SET_FD, "lowerdir+", 0, layer, 0));
    }
    int folder = needed_only_now(clone_tree(spares, one.name));
    if (asked.user)
        through_idmap(folder, namespace);
    int upper = (int)must("upper", SYS(openat, folder, "upper", O_PATH | O_CLOEXEC, 0, 0, 0));
    int work = (int)must("work", SYS(openat, folder, "work", O_PATH | O_CLOEXEC, 0, 0, 0));
    must("upperdir", SYS(fsconfig, context, FSCONFIG_SET_FD, "upperdir", 0, upper, 0));
    must("workdir", SYS(fsconfig, context, FSCONFIG_SET_FD, "workdir", 0, work, 0));
    must("volatile", SYS(fsconfig, context, FSCONFIG_SET_FLAG, "volatile", 0, 0, 0));
    one.overlay = new_mount(context, MOUNT_ATTR_NODEV);
    STEP(parents, "overlay");
}

static void make_dev(void)
{
    static const struct { const char *name; unsigned major, minor; } nodes[] = {
        {"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
    static const char *links[][2] = {{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"},
        {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}};
    static const char *folders[] = {"pts", "mqueue", "shm"};
    int context = new_context("tmpfs");
    configure(context, "mode", "755");
    configure(context, "size", "65536k");
    one.dev = new_mount(context, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    for (size_t index = 0; index < sizeof nodes / sizeof *nodes; index++) {
        unsigned number = nodes[index].major << 8 | nodes[index].minor;
        must(nodes[index].name, SYS(mknodat, one.dev, nodes[index].name, S_IFCHR | 0666, number, 0, 0));
    }
    for (size_t index = 0; index < sizeof links / sizeof *links; index++)
        must(links[index][0], SYS(symlinkat, links[index][1], one.dev, links[index][0], 0, 0, 0));
    for (size_t index = 0; index < sizeof folders / sizeof *folders; index++)
        must(folders[index], SYS(mkdirat, one.dev, folders[index], 0755, 0, 0, 0));
    STEP(parents, "/dev");
}

static void make_files(void)
{
    static const char *names[] = {"hostname", "hosts", "resolv.conf"};
    static const char *contents[] = {"floor\n", "127.0.0.1 localhost\n::1 localhost\n", ""};
    int context = new_context("tmpfs");
    configure(context, "mode", "755");
    configure(context, "size", "1m");
    int folder = needed_only_now(new_mount(context, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
    for (int index = 0; index < 3; index++) {
        int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
        int file = (int)must(names[index], SYS(openat, folder, names[index], flags, 0644, 0, 0));
        if (*contents[index])
            must(names[index], SYS(write, file, contents[index], strlen(contents[index]), 0, 0, 0));
        SYS(close, file, 0, 0, 0, 0, 0);
        one.files[index] = clone_tree(folder, names[index]);
    }
    STEP(parents, "files");
}

static void make_cgroup_folder(void)
{
    int context = new_context("tmpfs");
    configure(context, "mode", "755");
    configure(context, "size", "64k");
    one.cgroup_folder = new_mount(context, PLAIN_ATTRIBUTES);
    for (int index = 0; index < asked.hierarchy_count; index++)
        must("cgroup folder", SYS(mkdirat, one.cgroup_folder, views[index], 0755, 0, 0, 0));
    struct mount_attr readonly = {.attr_set = MOUNT_ATTR_RDONLY};
    must("cgroup folder", SYS(mount_setattr, one.cgroup_folder, "", AT_EMPTY_PATH, &readonly, sizeof readonly, 0));
}

/* What is made under the ids of the container's root belongs to it: no chown, no chmod. */
static void make_mounts(pid_t child)
{
    int id = asked.user ? BASE : 0;
    SYS(setfsgid, id, 0, 0, 0, 0, 0);
    SYS(setfsuid, id, 0, 0, 0, 0, 0);
    make_overlay(child);
    make_dev();
    if (!asked.unified)
        make_cgroup_folder();
    make_files();
    /* In a new user namespace the child may not mount the sysfs of a net namespace that is the host's. */
    if (!asked.network)
        one.sysfs = new_mount(new_context("sysfs"), PLAIN_ATTRIBUTES | MOUNT_ATTR_RDONLY);
    SYS(setfsuid, 0, 0, 0, 0, 0, 0);
    SYS(setfsgid, 0, 0, 0, 0, 0, 0);
}

/* ---- the child's part ------------------------------------------------------------------------------------------- */

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int socket = (int)must("socket", SYS(socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0, 0, 0, 0));
    must("loopback", SYS(ioctl, socket, SIOCSIFFLAGS, &request, 0, 0, 0));
    SYS(close, socket, 0, 0, 0, 0, 0);
}

static void settle_in(void)
{
    for (int index = 0; index < asked.hierarchy_count && !asked.unified; index++)
        must("joining a cgroup", SYS(write, one.members[index], "0", 1, 0, 0, 0));
    must("cgroup namespace", SYS(unshare, CLONE_NEWCGROUP, 0, 0, 0, 0, 0));
    SYS(setsid, 0, 0, 0, 0, 0, 0);
    STEP(childs, "cgroups joined");
    if (asked.network)
        raise_loopback();
    must("host name", SYS(sethostname, one.name, strlen(one.name), 0, 0, 0, 0));
    STEP(childs, "loopback");
    must("propagation", SYS(mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0, 0));
    one.proc = new_mount(new_context("proc"), PLAIN_ATTRIBUTES);
    if (asked.network)
        one.sysfs = new_mount(new_context("sysfs"), PLAIN_ATTRIBUTES | MOUNT_ATTR_RDONLY);
    STEP(childs, "proc, sysfs");
}

static void attach(int tree, const char *path)
{
    must(path, SYS(move_mount, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH, 0));
}

static void mount_here(const char *type, const char *path, unsigned long flags, const char *options)
{
    must(path, SYS(mount, type, path, type, flags, options, 0));
}

static void enter_root(void)
{
    for (int index = 0; asked.many && index < one.unneeded_count; index++)
        attach(one.unneeded[index], "/unneeded");
    attach(one.overlay, "/");
    must("root", SYS(fchdir, one.overlay, 0, 0, 0, 0, 0));
    must("pivot_root", SYS(pivot_root, ".", ".", 0, 0, 0, 0));
    must("old root", SYS(umount2, ".", MNT_DETACH, 0, 0, 0, 0));
    must("root", SYS(chdir, "/", 0, 0, 0, 0, 0));
    STEP(childs, "pivot_root");
}

static void mount_all(void)
{
    attach(one.proc, "/proc");
    attach(one.dev, "/dev");
    mount_here("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    attach(one.sysfs, "/sys");
    if (asked.unified) {
        mount_here("cgroup2", "/sys/fs/cgroup", PLAIN | MS_RDONLY, 0);
    } else {
        char path[64] = "/sys/fs/cgroup/";
        attach(one.cgroup_folder, "/sys/fs/cgroup");
        for (int index = 0; index < asked.hierarchy_count; index++) {
            strcpy(path + 15, views[index]);
            mount_here("cgroup", path, PLAIN | MS_RDONLY, views[index]);
        }
    }
    mount_here("mqueue", "/dev/mqueue", PLAIN, 0);
    mount_here("tmpfs", "/dev/shm", PLAIN, "mode=1777,size=67108864");
    attach(one.files[0], "/etc/hostname");
    attach(one.files[1], "/etc/hosts");
    attach(one.files[2], "/etc/resolv.conf");
    STEP(childs, "mounts");
}

static struct { const char *path; bool there, folder; } masked[] = {{"/proc/acpi"}, {"/proc/asound"},
    {"/proc/interrupts"}, {"/proc/kcore"}, {"/proc/keys"}, {"/proc/latency_stats"}, {"/proc/sched_debug"},
    {"/proc/scsi"}, {"/proc/timer_list"}, {"/proc/timer_stats"}, {"/sys/firmware"}, {"/sys/fs/selinux"},
    {"/sys/devices/virtual/powercap"}};
static struct { const char *path; bool there; } readonly[] = {
    {"/proc/bus"}, {"/proc/fs"}, {"/proc/irq"}, {"/proc/sys"}, {"/proc/sysrq-trigger"}};

static void hide(void)
{
    const char *empty = 0;
    for (size_t index = 0; index < sizeof masked / sizeof *masked; index++) {
        const char *path = masked[index].path;
        if (!masked[index].there)
            continue;
        if (!masked[index].folder)
            must(path, SYS(mount, "/dev/null", path, 0, MS_BIND, 0, 0));
        else if (empty)
            must(path, SYS(mount, empty, path, 0, MS_BIND, 0, 0));
        else
            mount_here("tmpfs", empty = path, PLAIN | MS_RDONLY, "size=4k,nr_inodes=2,mode=755");
    }
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
    for (size_t index = 0; index < sizeof readonly / sizeof *readonly; index++) {
        const char *path = readonly[index].path;
        if (!readonly[index].there)
            continue;
        must(path, SYS(mount, path, path, 0, MS_BIND | MS_REC, 0, 0));
        must(path, SYS(mount_setattr, AT_FDCWD, path, AT_RECURSIVE, &attributes, sizeof attributes, 0));
    }
    STEP(childs, "masks");
}

static void give_up_rights(void)
{
    gid_t none[] = {0};
    for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
        if (!(KEPT >> capability & 1))
            SYS(prctl, PR_CAPBSET_DROP, capability, 0, 0, 0, 0);
    must("groups", SYS(setgroups, 1, none, 0, 0, 0, 0));
    must("gid", SYS(setresgid, 0, 0, 0, 0, 0, 0));
    must("uid", SYS(setresuid, 0, 0, 0, 0, 0, 0));
    must("death signal", SYS(prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0));
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct rights[2] = {{KEPT, KEPT, 0}, {0, 0, 0}};
    must("capabilities", SYS(capset, &header, rights, 0, 0, 0, 0));
    must("new privileges", SYS(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0));
    STEP(childs, "capabilities");
    if (asked.filter)
        must("seccomp", SYS(seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter, 0, 0, 0));
    STEP(childs, "seccomp");
}

static void child(void)
{
    static char *environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", 0};
    settle_in();
    if (asked.ahead == NAMESPACES)
        open_gate(&one.reached, MOUNTS);
    wait_at(&one.gate, MOUNTS);
    STEP(childs, "waited for the parent");
    /* From here on the table is its own, and execve closes all but what is put in its place now. */
    must("descriptors", SYS(close_range, 3, ~0U, CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC, 0, 0, 0));
    /* Its ids so far are the host's root, which its user namespace does not know. */
    must("gid", SYS(setresgid, 0, 0, 0, 0, 0, 0));
    must("uid", SYS(setresuid, 0, 0, 0, 0, 0, 0));
    SYS(keyctl, KEYCTL_JOIN_SESSION_KEYRING, one.name, 0, 0, 0, 0);
    enter_root();
    mount_all();
    hide();
    SYS(umask, 022, 0, 0, 0, 0, 0);
    must("standard input", SYS(dup3, null_device, 0, 0, 0, 0, 0));
    must("standard output", SYS(dup3, one.output, 1, 0, 0, 0, 0));
    must("standard error", SYS(dup3, one.output, 2, 0, 0, 0, 0));
    give_up_rights();
    if (asked.ahead == EVERYTHING) {
        open_gate(&one.reached, RUN);
        wait_at(&one.gate, RUN);
    }
    STEP(childs, "execve");
    refuse(asked.program[0], SYS(execve, asked.program[0], asked.program, environment, 0, 0, 0));
}

/* ---- one container ---------------------------------------------------------------------------------------------- */

static char stack[STACK] __attribute__((aligned(16)));

/* clone3 returns on an empty stack in the child, where no C function may return: it calls child() instead. */
static pid_t start_child(void)
{
    uint64_t flags = CLONE_VM | CLONE_FILES | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS;
    flags |= (asked.user ? CLONE_NEWUSER : 0) | (asked.network ? CLONE_NEWNET : 0);
    struct clone_args arguments = {.flags = flags, .exit_signal = SIGCHLD, .stack = (uintptr_t)stack, .stack_size = STACK};
    if (asked.unified) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)one.members[0];
    }
    long result;
    register void (*entry)(void) __asm__("r12") = child;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "call *%%r12\n\t"
                     "ud2\n"
                     "1:"
                     : "=a"(result)
                     : "a"(SYS_clone3), "D"(&arguments), "S"(sizeof arguments), "r"(entry)
                     : "rcx", "r11", "memory");
    return (pid_t)must("clone3", result);
}

static void make_folder(void)
{
    int folder;
    must("spare folder", SYS(mkdirat, spares, one.name, 0755, 0, 0, 0));
    folder = (int)must("spare folder", SYS(openat, spares, one.name, O_PATH | O_CLOEXEC, 0, 0, 0));
    must("upper", SYS(mkdirat, folder, "upper", 0755, 0, 0, 0));
    must("work", SYS(mkdirat, folder, "work", 0755, 0, 0, 0));
    SYS(close, folder, 0, 0, 0, 0, 0);
}

static void remove_tree(int parent, const char *name)
{
    int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *entries = folder < 0 ? 0 : fdopendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && unlinkat(folder, entry->d_name, 0))
            remove_tree(folder, entry->d_name);
    if (entries)
        closedir(entries);
    if (unlinkat(parent, name, AT_REMOVEDIR))
        refuse(name, -errno);
}

static void clean_up(int first)
{
    SYS(close_range, first, ~0U, 0, 0, 0, 0);
    for (int index = 0; index < asked.hierarchy_count; index++)
        must("removing a cgroup", SYS(unlinkat, groups[index], one.name, AT_REMOVEDIR, 0, 0, 0));
    remove_tree(spares, one.name);
}

struct times { int64_t begun, ready, ended, gone; };

/* What the program printed: its clock. */
static int64_t read_clock(int input)
{
    char text[64] = "";
    ssize_t length = read(input, text, sizeof text - 1);
    if (length <= 0)
        refuse("the container's program printed nothing", -EIO);
    return strtoll(text, 0, 10);
}

/* One whose program has printed its clock; its process, and where that has been read from. */
static pid_t start_container(struct times *times, int *output)
{
    static unsigned count;
    int ends[2];
    parents.count = childs.count = 0;
    one.gate = one.reached = CLOSED;
    one.unneeded_count = 0;
    snprintf(one.name, sizeof one.name, "%x-%u", getpid(), count++);
    make_folder();
    times->begun = now();
    must("pipe", SYS(pipe2, ends, O_CLOEXEC, 0, 0, 0, 0));
    one.output = ends[1];
    make_groups();
    pid_t pid = start_child();
    STEP(parents, "clone3");
    if (asked.user)
        map_ids(pid);
    if (asked.ahead == NAMESPACES) {
        wait_at(&one.reached, MOUNTS);
        times->begun = now();
    }
    make_mounts(pid);
    open_gate(&one.gate, MOUNTS);
    if (asked.ahead == EVERYTHING) {
        wait_at(&one.reached, RUN);
        times->begun = now();
        open_gate(&one.gate, RUN);
    }
    times->ready = read_clock(ends[0]);
    *output = ends[0];
    return pid;
}

static struct times make_container(void)
{
    struct times times;
    int output, status;
    pid_t pid = start_container(&times, &output);
    must("waiting", SYS(wait4, pid, &status, 0, 0, 0, 0));
    times.ended = now();
    clean_up(output);
    times.gone = now();
    if (status)
        refuse("the container's program failed", -ECHILD);
    return times;
}

/* ---- once a process --------------------------------------------------------------------------------------------- */

/* Device rules are inherited from the group above, which makes twelve writes fewer a container. */
static void allow_devices(int group)
{
    static const char *rules[] = {"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm",
        "c 1:9 rwm", "c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm"};
    write_file(group, "devices.deny", "a");
    for (size_t index = 0; index < sizeof rules / sizeof *rules; index++)
        write_file(group, "devices.allow", rules[index]);
}

static char group_name[32];
static int tops[MANY];

static void make_top_groups(void)
{
    snprintf(group_name, sizeof group_name, "pyrt-floor-%d", getpid());
    for (int index = 0; index < asked.hierarchy_count; index++) {
        const char *path = asked.hierarchies[index];
        views[index] = strrchr(path, '/') + 1;
        tops[index] = (int)must(path, SYS(openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, 0, 0));
        must(path, SYS(mkdirat, tops[index], group_name, 0755, 0, 0, 0));
        groups[index] = (int)must(path, SYS(openat, tops[index], group_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, 0, 0));
        if (!asked.unified && !strcmp(views[index], "devices"))
            allow_devices(groups[index]);
        if (asked.unified)
            write_file(groups[index], "cgroup.subtree_control", "+memory +pids");
    }
}

static void remove_top_groups(void)
{
    for (int index = 0; index < asked.hierarchy_count; index++)
        unlinkat(tops[index], group_name, AT_REMOVEDIR);
}

static void read_filter(void)
{
    int file = (int)must(asked.filter, SYS(openat, AT_FDCWD, asked.filter, O_RDONLY | O_CLOEXEC, 0, 0, 0));
    static struct sock_filter program[4096];
    long length = must(asked.filter, SYS(read, file, program, sizeof program, 0, 0, 0));
    filter.len = (unsigned short)((size_t)length / sizeof *program);
    filter.filter = program;
    SYS(close, file, 0, 0, 0, 0, 0);
}

static void look_around(void)
{
    struct stat stat_of;
    for (size_t index = 0; index < sizeof masked / sizeof *masked; index++) {
        masked[index].there = !stat(masked[index].path, &stat_of);
        masked[index].folder = masked[index].there && S_ISDIR(stat_of.st_mode);
    }
    for (size_t index = 0; index < sizeof readonly / sizeof *readonly; index++)
        readonly[index].there = !stat(readonly[index].path, &stat_of);
}

/* A root with nothing but /proc and /sys: a mount namespace is copied mount by mount. */
static void shrink_root(void)
{
    must("mount namespace", SYS(unshare, CLONE_NEWNS, 0, 0, 0, 0, 0));
    must("propagation", SYS(mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0, 0));
    spares = clone_tree(AT_FDCWD, asked.spares);
    for (int index = 0; index < asked.lower_count; index++)
        lowers[index] = clone_tree(AT_FDCWD, asked.lowers[index]);
    int proc = clone_tree(AT_FDCWD, "/proc"), sys = clone_tree(AT_FDCWD, "/sys");
    int root = new_mount(new_context("tmpfs"), 0);
    must("proc", SYS(mkdirat, root, "proc", 0555, 0, 0, 0));
    must("sys", SYS(mkdirat, root, "sys", 0555, 0, 0, 0));
    must("unneeded", SYS(mkdirat, root, "unneeded", 0555, 0, 0, 0));
    attach(root, "/");
    must("root", SYS(fchdir, root, 0, 0, 0, 0, 0));
    must("pivot_root", SYS(pivot_root, ".", ".", 0, 0, 0, 0));
    must("old root", SYS(umount2, ".", MNT_DETACH, 0, 0, 0, 0));
    must("root", SYS(chdir, "/", 0, 0, 0, 0, 0));
    attach(proc, "/proc");
    attach(sys, "/sys");
    processes = (int)must("/proc", SYS(openat, AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, 0, 0));
}

/* ---- what is asked and answered --------------------------------------------------------------------------------- */

static void print_steps(const char *side, const struct steps *steps, int64_t begun)
{
    printf(", \"%s\": [", side);
    for (int index = 0; index < steps->count; index++)
        printf("%s[\"%s\", %lld]", index ? ", " : "", steps->step[index].name, (long long)(steps->step[index].at - begun));
    printf("]");
}

static void answer(const struct times *times)
{
    int64_t begun = times->begun;
    printf("{\"ready\": %lld, \"ended\": %lld, \"gone\": %lld", (long long)(times->ready - begun),
           (long long)(times->ended - begun), (long long)(times->gone - begun));
    print_steps("parent", &parents, begun);
    print_steps("child", &childs, begun);
    printf("}\n");
    fflush(stdout);
}

static void serve(void)
{
    for (int letter; (letter = getchar()) != EOF;)
        if (letter == '\n') {
            struct times times = make_container();
            answer(&times);
        }
}

/* Prints how long `workers` processes took for `count` containers together, from nothing to nothing left. */
static void make_many(int workers, int count)
{
    int status, failed = 0;
    int64_t begun = now();
    for (int worker = 0; worker < workers; worker++)
        if (!fork()) {
            for (int done = worker; done < count; done += workers)
                make_container();
            _exit(0);
        }
    while (wait(&status) > 0)
        failed |= status;
    if (failed)
        refuse("a worker failed", -ECHILD);
    printf("{\"containers\": %d, \"elapsed\": %lld}\n", count, (long long)(now() - begun));
}

/* Nothing of the making stays open meanwhile. */
static void keep_many(int count)
{
    struct { pid_t pid; char name[sizeof one.name]; } *kept = calloc((size_t)count, sizeof *kept);
    struct times times;
    int output, status;
    for (int index = 0; index < count; index++) {
        kept[index].pid = start_container(&times, &output);
        memcpy(kept[index].name, one.name, sizeof one.name);
        SYS(close_range, output, ~0U, 0, 0, 0, 0);
    }
    printf("{\"containers\": %d}\n", count);
    fflush(stdout);
    while (getchar() != EOF) {}
    for (int index = 0; index < count; index++) {
        kill(kept[index].pid, SIGKILL);
        must("waiting", SYS(wait4, kept[index].pid, &status, 0, 0, 0, 0));
        memcpy(one.name, kept[index].name, sizeof one.name);
        clean_up(output);
    }
}

static void read_options(int count, char **words, int *workers, int *containers, int *keep)
{
    enum { LOWER = 256, SPARES, V1, V2, FILTER, NO_NETWORK, NO_USER, POOLED, PARKED, AT_ONCE, COUNT, KEEP };
    static const struct option known[] = {{"lower", 1, 0, LOWER}, {"spares", 1, 0, SPARES}, {"v1", 1, 0, V1},
        {"v2", 1, 0, V2}, {"seccomp", 1, 0, FILTER}, {"no-network", 0, 0, NO_NETWORK}, {"no-user", 0, 0, NO_USER},
        {"pooled", 0, 0, POOLED}, {"parked", 0, 0, PARKED}, {"at-once", 1, 0, AT_ONCE}, {"count", 1, 0, COUNT},
        {"keep", 1, 0, KEEP}, {0}};
    for (int option; (option = getopt_long(count, words, "+", known, 0)) != -1;)
        switch (option) {
        case LOWER: asked.lowers[asked.lower_count++] = optarg; break;
        case SPARES: asked.spares = optarg; break;
        case V2: asked.unified = true; /* fall through */
        case V1: asked.hierarchies[asked.hierarchy_count++] = optarg; break;
        case FILTER: asked.filter = optarg; break;
        case NO_NETWORK: asked.network = false; break;
        case NO_USER: asked.user = false; break;
        case POOLED: asked.ahead = NAMESPACES; break;
        case PARKED: asked.ahead = EVERYTHING; break;
        case AT_ONCE: asked.many = (*workers = atoi(optarg)) > 0; break;
        case COUNT: *containers = atoi(optarg); break;
        case KEEP: *keep = atoi(optarg); break;
        default: exit(2);
        }
    asked.program = words + optind;
    if (!asked.lower_count || !asked.spares || !*asked.program) {
        fprintf(stderr,
                "usage: floor --lower DIR ... --spares DIR [--v1 HIERARCHY ... | --v2 HIERARCHY] [--seccomp FILE]\n"
                "             [--no-network] [--no-user] [--pooled | --parked] [--at-once N --count M | --keep N] PROGRAM [ARG ...]\n"
                "\n"
                "Makes a container for each line of standard input and prints its times in nanoseconds, as JSON.\n"
                "PROGRAM prints CLOCK_MONOTONIC. Layers topmost first. --pooled: cgroups and namespaces are made before\n"
                "the clock starts; --parked: all but execve. --at-once: M containers by N processes, and the time of all.\n"
                "--keep: N that stay until standard input ends.\n");
        exit(2);
    }
}

int main(int count, char **words)
{
    int workers = 0, containers = 0, keep = 0;
    read_options(count, words, &workers, &containers, &keep);
    prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP); /* setfsuid is to leave capabilities alone */
    umask(0);
    complaints = fcntl(2, F_DUPFD_CLOEXEC, 3);
    null_device = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (asked.filter)
        read_filter();
    look_around();
    make_top_groups();
    atexit(remove_top_groups);
    shrink_root();
    if (workers)
        make_many(workers, containers);
    else if (keep)
        keep_many(keep);
    else
        serve();
    return 0;
}
