package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/hyperkeep/hyperkeep/agent/identity"
	"github.com/hyperkeep/hyperkeep/agent/service"
	"github.com/hyperkeep/hyperkeep/agent/statefile"
)

// tokenVariable may hold the one-time token. There is no flag for the token itself: whoever lists processes would see it.
const tokenVariable = "HYPERKEEP_TOKEN"

// enrollFlags say where and as what a host enrolls.
type enrollFlags struct {
	folder                              folderFlag
	host, server, ca, caHash, tokenFile string
}

func enrollCommand() *cobra.Command {
	var flags enrollFlags
	cmd := &cobra.Command{
		Use: "enroll", Short: "Turn a one-time token into this Windows host's own identity", Args: cobra.NoArgs,
		Long: "An administrator makes the one-time token for a HyperVHost named hv01:\n\n" +
			"  kubectl create serviceaccount enroller --namespace hyperkeep-host-hv01\n" +
			"  kubectl create token enroller --namespace hyperkeep-host-hv01 --duration 15m\n\n" +
			"It is read from --token-file, else from the environment variable " + tokenVariable + ", else from the standard input.",
		RunE: func(cmd *cobra.Command, _ []string) error { return flags.run(cmd) },
	}
	flags.folder.add(cmd)
	cmd.Flags().StringVar(&flags.host, "host", "", "name of this host's HyperVHost object (required)")
	cmd.Flags().StringVar(&flags.server, "server", "", "address of the API server, https://... (required)")
	cmd.Flags().StringVar(&flags.ca, "ca", "", "file with the certificate authority of the API server (default: those that Windows trusts)")
	cmd.Flags().StringVar(&flags.caHash, "ca-hash", "", "sha256:... of that authority's public key, as kubeadm prints it, instead of the file")
	cmd.Flags().StringVar(&flags.tokenFile, "token-file", "", "file with the one-time token")
	cmd.MarkFlagsMutuallyExclusive("ca", "ca-hash")
	cobra.CheckErr(errors.Join(cmd.MarkFlagRequired("host"), cmd.MarkFlagRequired("server")))
	return cmd
}

func (f *enrollFlags) run(cmd *cobra.Command) error {
	folder, err := f.folder.path()
	if err != nil {
		return err
	}
	if err := service.MakePrivate(folder); err != nil {
		return err
	}
	ca, err := f.authority(cmd.Context())
	if err != nil {
		return err
	}
	token, err := f.token(cmd.InOrStdin(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	// Everything else is written first: the one-time token is good only once.
	settings, err := service.Load(folder)
	if err != nil || settings.Host != f.host {
		settings = service.DefaultSettings(folder, f.host)
	}
	if err := errors.Join(settings.Save(), f.writeKubeconfig(settings, ca)); err != nil {
		return err
	}
	computer, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("ask for this computer's name: %w", err)
	}
	config := &rest.Config{Host: f.server, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: ca}, UserAgent: "hyperkeep-agent/" + version}
	left, err := identity.Enrolment{Config: config, Host: f.host, Computer: computer}.Run(cmd.Context(), func(token identity.Token) error {
		if err := statefile.Write(settings.TokenPath(), token.Bytes()); err != nil {
			return fmt.Errorf("write the agent's token: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if left != nil {
		ctrl.Log.Error(left, "The account of the one-time token stays: it is of no more use, remove it")
	}
	fmt.Fprintf(cmd.OutOrStdout(), "This computer is enrolled as host %s. Start the agent with: agent.exe install\n", f.host)
	return settings.CheckPrivate()
}

// authority of the API server, in PEM; none means those that Windows trusts.
func (f *enrollFlags) authority(ctx context.Context) ([]byte, error) {
	switch {
	case f.caHash != "":
		return identity.Trust(ctx, f.server, f.caHash)
	case f.ca != "":
		ca, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("read the certificate authority: %w", err)
		}
		return ca, nil
	default:
		return nil, nil
	}
}

// token reads the one-time token from where processes are not listed.
func (f *enrollFlags) token(in io.Reader, prompt io.Writer) (string, error) {
	var text string
	if f.tokenFile != "" {
		content, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return "", fmt.Errorf("read the one-time token: %w", err)
		}
		text = string(content)
	} else if text = os.Getenv(tokenVariable); text == "" {
		fmt.Fprintln(prompt, "Paste the one-time token and press Enter:")
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the one-time token: %w", err)
		}
		text = line
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", errors.New("there is no one-time token: give it with --token-file, in " + tokenVariable + " or on the standard input")
	}
	return text, nil
}

// writeKubeconfig names the file of the token, so that every client reads it anew when it was renewed.
func (f *enrollFlags) writeKubeconfig(settings service.Settings, ca []byte) error {
	config := clientcmdapi.NewConfig()
	config.CurrentContext = f.host
	config.Contexts[f.host] = &clientcmdapi.Context{Cluster: f.host, AuthInfo: f.host}
	config.Clusters[f.host] = &clientcmdapi.Cluster{Server: f.server, CertificateAuthorityData: ca}
	config.AuthInfos[f.host] = &clientcmdapi.AuthInfo{TokenFile: filepath.Base(settings.TokenPath())}
	content, err := clientcmd.Write(*config)
	if err == nil {
		err = statefile.Write(settings.KubeconfigPath(), content)
	}
	if err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	return nil
}
