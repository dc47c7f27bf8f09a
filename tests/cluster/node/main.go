// Kube is every server component of a Kubernetes node in one binary, chosen by the first argument:
// one link instead of eight, and every component of one pinned version.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// commands holds constructors, not commands: building one registers its feature gates and metrics,
// and two components in one process would register some of them twice.
var commands = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	if len(os.Args) < 2 {
		refuse("name a component")
	}
	name := os.Args[1]
	os.Args = os.Args[1:] // each component reads its flags from os.Args itself
	switch construct, known := commands[name]; {
	case known:
		os.Exit(cli.Run(construct()))
	case name == "etcd":
		etcdmain.Main(os.Args)
	case name == "coredns":
		// The order in which a query passes the plugins; a plugin that is not named here does not exist.
		dnsserver.Directives = []string{"bind", "ready", "errors", "cache", "kubernetes", "template"}
		coremain.Run()
	default:
		refuse("unknown component " + name)
	}
}

func refuse(reason string) {
	fmt.Fprintln(os.Stderr, "kube:", reason, "(etcd, coredns, kubectl, kubelet, kube-apiserver, ...)")
	os.Exit(64)
}
