// Counts what a process does to files below one folder, and makes the n-th of these operations fail.
//
// Preloaded, it stands before the system's own functions for all code of a process: Python's, and that in Rust or C++.
// `faults_arm` says where and when. Each operation is noted in a log: its kind, bytes, and path.

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 65536
enum { NOTHING, ERROR, HALF, END };

static char root[PATH_MAX];
static size_t root_length;
static long nth, count;
static int way, error_number, lasting, log_handle = -1;
static char *paths[FILES];

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

void faults_arm(const char *folder, long number, int how, int code, int for_ever, const char *log) {
    if (log_handle >= 0) syscall(SYS_close, log_handle);
    log_handle = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    nth = number, way = how, error_number = code, lasting = for_ever, count = 0;
    strcpy(root, folder);
    root_length = strlen(root);
}

// Return the path in full if it is below the folder, in a buffer that is given.
static const char *below(int folder, const char *path, char *full) {
    if (!root_length || !path) return NULL;
    if (path[0] != '/') {
        char link[64];
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, full, PATH_MAX - 1);
        if (length < 0) return NULL;
        snprintf(full + length, PATH_MAX - length, "/%s", path);
    } else {
        snprintf(full, PATH_MAX, "%s", path);
    }
    if (strncmp(full, root, root_length) || (full[root_length] && full[root_length] != '/')) return NULL;
    return full;
}

static const char *path_of(int handle) {
    return handle >= 0 && handle < FILES ? paths[handle] : NULL;
}

static int is_writing(const char *kind) {
    return !strcmp(kind, "open") || !strcmp(kind, "write") || !strcmp(kind, "sync") || !strcmp(kind, "mkdir") ||
           !strcmp(kind, "rename") || !strcmp(kind, "link");
}

// Note an operation, and return what is to become of it.
static int meet(const char *kind, const char *path, long bytes, const char *other) {
    long number = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    char line[2 * PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s\t%ld\t%s\t%s\n", kind, bytes, path, other ? other : "");
    syscall(SYS_write, log_handle, line, length);
    if (way == NOTHING || !(number == nth || (lasting && number > nth && is_writing(kind)))) return NOTHING;
    if (way == END && strcmp(kind, "write")) syscall(SYS_kill, getpid(), SIGKILL);
    return way;
}

static void end_if_told(int what) {
    if (what == END) syscall(SYS_kill, getpid(), SIGKILL);
}

static int fail(void) {
    errno = error_number;
    return -1;
}

// An operation that is done or not, and may be done and yet report an error.
#define WHOLE(kind, path, other, call) \
    int what = meet(kind, path, 0, other); \
    if (what == ERROR) return fail(); \
    int result = (call); \
    return what == HALF ? fail() : result

static int opened(int folder, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    const char *name = below(folder, path, full);
    int writes = (flags & (O_ACCMODE | O_CREAT)) != 0;
    int what = name ? meet(writes ? "open" : "look", name, flags & O_TRUNC, NULL) : NOTHING;
    if (what == ERROR) return fail();
    int handle = syscall(SYS_openat, folder, path, flags, mode);
    if (handle < 0) return handle;
    if (what == HALF) return syscall(SYS_close, handle), fail();
    if (handle < FILES) paths[handle] = name ? strdup(name) : NULL;
    return handle;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, int); va_end(list); }

int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return opened(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) return opened(folder, path, flags, mode); }
int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int handle) {
    if (handle >= 0 && handle < FILES) paths[handle] = NULL;
    return syscall(SYS_close, handle);
}

DIR *opendir(const char *path) {
    REAL(DIR *, "opendir", const char *);
    char full[PATH_MAX];
    const char *name = below(AT_FDCWD, path, full);
    int what = name ? meet("list", name, 0, NULL) : NOTHING;
    if (what == ERROR || what == HALF) return fail(), NULL;
    return real(path);
}

ssize_t read(int handle, void *data, size_t size) {
    const char *path = path_of(handle);
    int what = path ? meet("read", path, 0, NULL) : NOTHING;
    if (what == ERROR || what == HALF) return fail();
    return syscall(SYS_read, handle, data, size);
}

ssize_t write(int handle, const void *data, size_t size) {
    const char *path = path_of(handle);
    int what = path ? meet("write", path, size, NULL) : NOTHING;
    if (what == NOTHING) return syscall(SYS_write, handle, data, size);
    if (what != ERROR) syscall(SYS_write, handle, data, size / 2);
    end_if_told(what);
    return fail();
}

ssize_t writev(int handle, const struct iovec *parts, int number) {
    if (!path_of(handle)) return syscall(SYS_writev, handle, parts, number);
    ssize_t total = 0;
    for (int index = 0; index < number; index++) {
        ssize_t written = write(handle, parts[index].iov_base, parts[index].iov_len);
        if (written < 0) return total ? total : written;
        total += written;
    }
    return total;
}

ssize_t pwrite64(int handle, const void *data, size_t size, off_t offset) {
    const char *path = path_of(handle);
    int what = path ? meet("write", path, size, NULL) : NOTHING;
    if (what == NOTHING) return syscall(SYS_pwrite64, handle, data, size, offset);
    if (what != ERROR) syscall(SYS_pwrite64, handle, data, size / 2, offset);
    end_if_told(what);
    return fail();
}
ssize_t pwrite(int handle, const void *data, size_t size, off_t offset) { return pwrite64(handle, data, size, offset); }

ssize_t sendfile64(int to, int from, off_t *offset, size_t size) {
    const char *path = path_of(to);
    struct stat state;
    long bytes = path && !fstat(from, &state) ? state.st_size : 0;
    // The call after the last byte writes nothing.
    if (!path || (offset && *offset >= bytes)) return syscall(SYS_sendfile, to, from, offset, size);
    int what = meet("write", path, bytes, NULL);
    if (what == NOTHING) return syscall(SYS_sendfile, to, from, offset, size);
    if (what != ERROR) syscall(SYS_sendfile, to, from, offset, bytes / 2);
    end_if_told(what);
    return fail();
}
ssize_t sendfile(int to, int from, off_t *offset, size_t size) { return sendfile64(to, from, offset, size); }

#define ON_HANDLE(function, kind, number) \
    int function(int handle) { \
        const char *path = path_of(handle); \
        if (!path) return syscall(number, handle); \
        WHOLE(kind, path, NULL, syscall(number, handle)); \
    }
ON_HANDLE(fsync, "sync", SYS_fsync)
ON_HANDLE(fdatasync, "sync", SYS_fdatasync)

int flock(int handle, int operation) {
    const char *path = path_of(handle);
    if (!path || operation == LOCK_UN) return syscall(SYS_flock, handle, operation);
    WHOLE("lock", path, NULL, syscall(SYS_flock, handle, operation));
}

int ftruncate64(int handle, off_t size) {
    const char *path = path_of(handle);
    if (!path) return syscall(SYS_ftruncate, handle, size);
    WHOLE("truncate", path, NULL, syscall(SYS_ftruncate, handle, size));
}
int ftruncate(int handle, off_t size) { return ftruncate64(handle, size); }

#define ON_PATH(kind, folder, path, call) \
    char full[PATH_MAX]; \
    const char *name = below(folder, path, full); \
    if (!name) return (call); \
    WHOLE(kind, name, NULL, call)

int unlink(const char *path) { ON_PATH("unlink", AT_FDCWD, path, syscall(SYS_unlinkat, AT_FDCWD, path, 0)); }
int unlinkat(int folder, const char *path, int flags) {
    ON_PATH("unlink", folder, path, syscall(SYS_unlinkat, folder, path, flags));
}
int rmdir(const char *path) { ON_PATH("unlink", AT_FDCWD, path, syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR)); }
int mkdir(const char *path, mode_t mode) { ON_PATH("mkdir", AT_FDCWD, path, syscall(SYS_mkdirat, AT_FDCWD, path, mode)); }
int mkdirat(int folder, const char *path, mode_t mode) {
    ON_PATH("mkdir", folder, path, syscall(SYS_mkdirat, folder, path, mode));
}
int chmod(const char *path, mode_t mode) { ON_PATH("chmod", AT_FDCWD, path, syscall(SYS_fchmodat, AT_FDCWD, path, mode)); }
int fchmodat(int folder, const char *path, mode_t mode, int flags) {
    REAL(int, "fchmodat", int, const char *, mode_t, int);
    ON_PATH("chmod", folder, path, real(folder, path, mode, flags));
}

static int renamed(int folder, const char *from, int other_folder, const char *to) {
    char full[PATH_MAX], other[PATH_MAX];
    const char *name = below(folder, from, full), *other_name = below(other_folder, to, other);
    if (!name && !other_name) return syscall(SYS_renameat2, folder, from, other_folder, to, 0);
    WHOLE("rename", name ? name : "", other_name, syscall(SYS_renameat2, folder, from, other_folder, to, 0));
}
int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int folder, const char *from, int other, const char *to) { return renamed(folder, from, other, to); }
int renameat2(int folder, const char *from, int other, const char *to, unsigned flags) {
    return flags ? syscall(SYS_renameat2, folder, from, other, to, flags) : renamed(folder, from, other, to);
}

int link(const char *from, const char *to) {
    ON_PATH("link", AT_FDCWD, to, syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0));
}
int symlink(const char *from, const char *to) { ON_PATH("link", AT_FDCWD, to, syscall(SYS_symlinkat, from, AT_FDCWD, to)); }
