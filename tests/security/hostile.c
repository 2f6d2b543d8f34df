/* What a hostile container does in a loop while others start and join: run inside by the tests beside it.
 *
 *     scan       opens all that /proc shows of other processes, prints each link that it could follow or write to
 *     trace      attaches to every process as it comes, prints what it caught
 *     exchange   renames A and B into each other's places for as long as it lives
 *
 * Each prints "ready" first, a line for each thing that it finds (once), and ends with its standard input.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long rounds;

static int goes_on(void) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    rounds++;
    return poll(&input, 1, 0) == 0;
}

static int at_end(void) {
    printf("rounds %lu\n", rounds);
    return 0;
}

/* Prints a line unless it was printed before. */
static void found(const char *what, const char *target) {
    static char known[512][128];
    static size_t count;
    char line[128];
    snprintf(line, sizeof line, "%s %s", what, target);
    for (size_t i = 0; i < count; i++)
        if (strcmp(known[i], line) == 0) return;
    if (count < 512) strcpy(known[count++], line);
    puts(line);
}

/* ---- scan ---- */

static void try_open(int folder, const char *name, const char *what) {
    char target[96] = "";
    if (readlinkat(folder, name, target, sizeof target - 1) < 0) {
        if (errno == EACCES) found("denied", what);
        return;
    }
    found(what, target);
    int fd = openat(folder, name, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0) {
        char writes[32];
        snprintf(writes, sizeof writes, "%s-written", what);
        found(writes, target);
        close(fd);
    }
    /* As the exploits do: a descriptor for reading first, which can be opened anew for writing once nobody executes it. */
    fd = openat(folder, name, O_PATH | O_CLOEXEC);
    if (fd < 0) return;
    char again[32];
    snprintf(again, sizeof again, "/proc/self/fd/%d", fd);
    int second = open(again, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (second >= 0) {
        found("reopened", target);
        close(second);
    }
    close(fd);
}

static void scan_folder(int process, const char *name) {
    int fd = openat(process, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == EACCES) found("denied", name);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (entry->d_name[0] != '.') try_open(fd, entry->d_name, name);
    if (folder) closedir(folder);
    else if (fd >= 0) close(fd);
}

static void scan_text(int process, const char *name) {
    static char text[1 << 16];
    int fd = openat(process, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t length = read(fd, text, sizeof text - 1);
    if (length > 0 && memmem(text, length, "memfd:", 6)) found(name, "of a memfd");
    close(fd);
}

static int scan(void) {
    puts("ready");
    while (goes_on()) {
        DIR *all = opendir("/proc");
        for (struct dirent *entry; all && (entry = readdir(all));) {
            if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || atoi(entry->d_name) == getpid()) continue;
            int process = openat(dirfd(all), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (process < 0) continue;
            try_open(process, "exe", "exe");
            try_open(process, "cwd", "cwd");
            try_open(process, "root", "root");
            scan_folder(process, "fd");
            scan_folder(process, "map_files");
            scan_text(process, "maps");
            close(process);
        }
        if (all) closedir(all);
    }
    return at_end();
}

/* ---- trace ---- */

static void catch_one(pid_t pid) {
    char path[32], target[96] = "";
    int status;
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    /* Memory at the address where the static program lies, which is not position independent. */
    if (process_vm_readv(pid, &here, 1, &there, 1, 0) == 1 && readlink(path, target, sizeof target - 1) > 0)
        found("memory", target);
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) < 0) {
        if (errno == EPERM) found("refused", "attach");
        return;
    }
    /* At once and when it has stopped, after which it can't have become another program unseen. */
    for (int stopped = 0; stopped < 2; stopped++) {
        memset(target, 0, sizeof target);
        if (readlink(path, target, sizeof target - 1) > 0) found("caught", target);
        if (stopped == 0 && (ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0 || waitpid(pid, &status, __WALL) != pid)) break;
    }
    ptrace(PTRACE_DETACH, pid, 0, 0);
}

static int trace(void) {
    puts("ready");
    while (goes_on()) {
        DIR *all = opendir("/proc");
        for (struct dirent *entry; all && (entry = readdir(all));)
            if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && atoi(entry->d_name) != getpid())
                catch_one(atoi(entry->d_name));
        if (all) closedir(all);
    }
    return at_end();
}

/* ---- exchange ---- */

static int exchange(const char *one, const char *other) {
    puts("ready");
    while (goes_on())
        for (int i = 0; i < 64; i++)
            if (renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) < 0) return perror("renameat2"), 1;
    return at_end();
}

int main(int count, char **words) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count == 2 && strcmp(words[1], "scan") == 0) return scan();
    if (count == 2 && strcmp(words[1], "trace") == 0) return trace();
    if (count == 4 && strcmp(words[1], "exchange") == 0) return exchange(words[2], words[3]);
    fputs("usage: hostile scan | trace | exchange A B\n", stderr);
    return 2;
}
