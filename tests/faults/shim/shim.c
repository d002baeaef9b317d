// Stands between a process and the C library (LD_PRELOAD): lets syncs and writes fail, lie or take their time, sets the clock wrong, and
// keeps a record of every write, so that a power cut can be played afterwards. Linux only.
//
// FAULTS_CONTROL names a file of 64-bit numbers that both sides map: what shall fail, and what has happened (the slots below; those of
// src/shim.rs are the same). FAULTS_RECORD names the record, if there shall be one. Only files whose path contains FAULTS_MATCH are
// touched, and syncs fail for those whose path ends with FAULTS_SYNCS. Without FAULTS_CONTROL everything is as it would be.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum slot {
  LOADED, CLOCK_MS,
  SYNC_DELAY_US, SYNC_ERRNO, SYNC_SKIP, SYNC_TIMES, SYNC_PPM,
  WRITE_DELAY_US, WRITE_ERRNO, WRITE_SKIP, WRITE_TIMES, WRITE_PPM,
  SYNCS, SYNCS_FAILED, WRITES, WRITES_FAILED, RANDOM, LIES, SLOTS
};

static _Atomic int64_t nothing[SLOTS];
static _Atomic int64_t *slots = nothing;
static const char *match = "", *syncs = "";
static int record = -1;
static int64_t recorded;
// Held over a write and its record, so that both have one order.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static ssize_t (*real_pread)(int, void *, size_t, off64_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off64_t);
static int (*real_unlink)(const char *);
static int (*real_clock_gettime)(clockid_t, struct timespec *);

static void resolve(void) {
  real_write = dlsym(RTLD_NEXT, "write");
  real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
  real_pread = dlsym(RTLD_NEXT, "pread64");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
  real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
}

__attribute__((constructor)) static void begin(void) {
  resolve();
  const char *control = getenv("FAULTS_CONTROL"), *log = getenv("FAULTS_RECORD"), *part = getenv("FAULTS_MATCH"), *end = getenv("FAULTS_SYNCS");
  if (!control) return;
  if (part) match = part;
  if (end) syncs = end;
  int file = open(control, O_RDWR | O_CLOEXEC);
  if (file < 0) return;
  void *page = mmap(NULL, SLOTS * 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (page == MAP_FAILED) return;
  slots = page;
  if (log) record = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (record >= 0) recorded = lseek64(record, 0, SEEK_END);
  slots[LOADED]++;
}

// Where a descriptor leads; 0: nowhere.
static ssize_t path_of(int fd, char path[512]) {
  char name[32];
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(name, path, 511);
  path[length > 0 ? length : 0] = 0;
  return length > 0 ? length : 0;
}

// Whether a descriptor is one of the files whose syncs may fail.
static int may_fail(int fd) {
  char path[512];
  ssize_t length = path_of(fd, path), end = (ssize_t)strlen(syncs);
  return length >= end && strcmp(path + length - end, syncs) == 0;
}

// Whether a descriptor is one of the files in question, and which.
static int is_ours(int fd, struct stat *stat) {
  char path[512];
  if (slots == nothing || !path_of(fd, path)) return 0;
  return strstr(path, match) && fstat(fd, stat) == 0 && S_ISREG(stat->st_mode);
}

// Waits, and says with which errno a call shall fail: 0, with none. `at` is the first of the five slots.
static int verdict(enum slot at) {
  int64_t delay = slots[at], error = slots[at + 1];
  if (delay > 0) usleep((useconds_t)delay);
  if (!error) return 0;
  if (slots[at + 2] > 0 && slots[at + 2]-- > 0) return 0;
  int64_t ppm = slots[at + 4];
  if (ppm > 0) {
    // splitmix64
    uint64_t z = (uint64_t)(slots[RANDOM] += (int64_t)0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    if ((int64_t)((z ^ z >> 31) % 1000000) >= ppm) return 0;
  }
  // Below 0: for ever.
  int64_t times = slots[at + 3];
  if (times == 0) return 0;
  if (times > 0) slots[at + 3]--;
  return (int)error;
}

enum kind { WRITE = 1, TRUNCATE, SYNC, SYNC_FAILED, UNLINK };
struct entry {
  int64_t kind, inode, offset, length, before, size;
};

// One entry: what stood there (`before` bytes), then what is written. Torn by a kill, it is the last one, and the write did not happen.
static void put(struct entry entry, const void *before, const void *data) {
  size_t new_length = entry.kind == WRITE ? (size_t)entry.length : 0;
  struct iovec parts[] = {{&entry, sizeof entry}, {(void *)before, (size_t)entry.before}, {(void *)data, new_length}};
  size_t total = sizeof entry + (size_t)entry.before + new_length;
  if (writev(record, parts, 3) != (ssize_t)total) {
    static const char said[] = "shim: the record cannot be written\n";
    real_write(2, said, sizeof said - 1);
    _exit(99);
  }
  recorded += (int64_t)total;
}

// `plain`: by write(2), which moves on by itself.
static ssize_t write_at(int fd, const void *data, size_t length, off64_t offset, const struct stat *stat, int plain) {
  slots[WRITES]++;
  int error = verdict(WRITE_DELAY_US);
  if (error) {
    slots[WRITES_FAILED]++;
    errno = error;
    return -1;
  }
  if (record < 0) return plain ? real_write(fd, data, length) : real_pwrite(fd, data, length, offset);
  pthread_mutex_lock(&lock);
  struct stat now = *stat;
  fstat(fd, &now);
  char *before = malloc(length ? length : 1);
  ssize_t there = before ? real_pread(fd, before, length, offset) : -1;
  struct entry entry = {WRITE, (int64_t)now.st_ino, offset, (int64_t)length, there > 0 ? there : 0, now.st_size};
  put(entry, before, data);
  free(before);
  ssize_t result = plain ? real_write(fd, data, length) : real_pwrite(fd, data, length, offset);
  int after = errno;
  pthread_mutex_unlock(&lock);
  errno = after;
  return result;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
  struct stat stat;
  if (!is_ours(fd, &stat)) return real_pwrite(fd, data, length, offset);
  return write_at(fd, data, length, offset, &stat, 0);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

ssize_t write(int fd, const void *data, size_t length) {
  struct stat stat;
  if (!real_write) resolve();
  if (!is_ours(fd, &stat)) return real_write(fd, data, length);
  int appends = fcntl(fd, F_GETFL) & O_APPEND;
  return write_at(fd, data, length, appends ? stat.st_size : lseek64(fd, 0, SEEK_CUR), &stat, 1);
}

static int sync_with(int (*real)(int), int fd) {
  struct stat stat;
  if (!is_ours(fd, &stat)) return real(fd);
  slots[SYNCS]++;
  if (slots[LIES]) return 0;
  pthread_mutex_lock(&lock);
  int64_t upto = recorded;
  pthread_mutex_unlock(&lock);
  int error = may_fail(fd) ? verdict(SYNC_DELAY_US) : 0, result = error ? -1 : real(fd);
  if (!error && result) error = errno;
  if (error) slots[SYNCS_FAILED]++;
  if (record >= 0) {
    pthread_mutex_lock(&lock);
    put((struct entry){error ? SYNC_FAILED : SYNC, (int64_t)stat.st_ino, upto, 0, 0, 0}, NULL, NULL);
    pthread_mutex_unlock(&lock);
  }
  errno = error;
  return result;
}

int fsync(int fd) { return sync_with(real_fsync, fd); }
int fdatasync(int fd) { return sync_with(real_fdatasync, fd); }

int ftruncate64(int fd, off64_t length) {
  struct stat stat;
  if (record < 0 || !is_ours(fd, &stat)) return real_ftruncate(fd, length);
  pthread_mutex_lock(&lock);
  fstat(fd, &stat);
  size_t cut = stat.st_size > length ? (size_t)(stat.st_size - length) : 0;
  char *before = malloc(cut ? cut : 1);
  ssize_t there = before && cut ? real_pread(fd, before, cut, length) : 0;
  put((struct entry){TRUNCATE, (int64_t)stat.st_ino, length, 0, there > 0 ? there : 0, stat.st_size}, before, NULL);
  free(before);
  int result = real_ftruncate(fd, length), after = errno;
  pthread_mutex_unlock(&lock);
  errno = after;
  return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

// A new file may get the number of one that is gone.
int unlink(const char *path) {
  struct stat stat;
  if (record < 0 || lstat(path, &stat) != 0 || !S_ISREG(stat.st_mode)) return real_unlink(path);
  pthread_mutex_lock(&lock);
  put((struct entry){UNLINK, (int64_t)stat.st_ino, 0, 0, 0, 0}, NULL, NULL);
  int result = real_unlink(path), after = errno;
  pthread_mutex_unlock(&lock);
  errno = after;
  return result;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  if (!real_clock_gettime) resolve();
  int result = real_clock_gettime(clock, time);
  int64_t shift = slots[CLOCK_MS];
  if (!result && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t nanos = time->tv_nsec + shift % 1000 * 1000000;
    time->tv_sec += shift / 1000 + (nanos < 0 ? -1 : nanos / 1000000000);
    time->tv_nsec = (nanos + 1000000000) % 1000000000;
  }
  return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  (void)zone;
  struct timespec now;
  int result = clock_gettime(CLOCK_REALTIME, &now);
  if (!result) *time = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
  return result;
}
