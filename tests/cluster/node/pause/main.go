// Pause holds a pod's namespaces: it does nothing until it is told to end, and as process 1 it ends only on a
// signal that it handles.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	// Orphans of a pod that shares its process namespace become children of this process.
	signal.Ignore(syscall.SIGCHLD)
	<-ended
}
