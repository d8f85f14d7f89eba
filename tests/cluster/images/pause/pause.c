// Holds a pod's namespaces open, and reaps what the pod leaves behind.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void quit(int signal) { _exit(0); }

static void reap(int signal) {
  while (waitpid(-1, 0, WNOHANG) > 0) {
  }
}

int main(void) {
  signal(SIGINT, quit);
  signal(SIGTERM, quit);
  signal(SIGCHLD, reap);
  for (;;) pause();
}
