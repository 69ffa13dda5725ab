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
	"golang.org/x/term"
	"sigs.k8s.io/yaml"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// What the environment may hold: names of ours for what is ours, and the names of the stores' own tools for what is theirs.
const (
	envRepository = "HYPERKEEP_REPOSITORY"
	envPassword   = "HYPERKEEP_PASSWORD"
)

// repositoryFlags say which repository is meant. Secrets are no flags: everybody on a machine sees the arguments of a process.
type repositoryFlags struct {
	repository, endpoint, region, account, ca string
	passwordFile, credentialsFile, workDir    string
	parallelism                               int
}

func (f *repositoryFlags) add(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVarP(&f.repository, "repository", "r", os.Getenv(envRepository),
		"the repository: a directory, s3://BUCKET/PREFIX, azure://CONTAINER/PREFIX or gs://BUCKET/PREFIX; the prefix as in the BackupRepository, with its slash (default $"+envRepository+")")
	flags.StringVar(&f.passwordFile, "password-file", "", "file whose first line is the repository's password (default $"+envPassword+", else it is asked for)")
	flags.StringVar(&f.credentialsFile, "credentials-file", "",
		"YAML file with the keys of the repository's Secret: password, accessKeyID, secretAccessKey, sasToken, serviceAccountKey (default: the variables that aws, az and gcloud read)")
	flags.StringVar(&f.endpoint, "endpoint", "", "address of the store: host, https://host or http://host:port (default: that of AWS, or of Azure)")
	flags.StringVar(&f.region, "region", os.Getenv("AWS_REGION"), "region of an S3 bucket")
	flags.StringVar(&f.account, "account", os.Getenv("AZURE_STORAGE_ACCOUNT"), "storage account of an Azure container")
	flags.StringVar(&f.ca, "ca-file", "", "PEM file with the certificates that an S3 store is trusted by, in place of the system's")
	flags.StringVar(&f.workDir, "work-dir", "", "folder for a small file without secrets while a repository is opened (default: the system's temporary folder)")
	flags.IntVar(&f.parallelism, "parallelism", 0, "pieces of a disk that are fetched at once (default: one per CPU)")
}

// open opens the repository for reading. Nothing is ever deleted or replaced through it.
func (f *repositoryFlags) open(ctx context.Context) (*image.Repository, error) {
	secrets, err := f.secrets()
	if err != nil {
		return nil, err
	}
	at, err := f.location(secrets)
	if err != nil {
		return nil, err
	}
	password, err := f.password(secrets)
	if err != nil {
		return nil, err
	}
	return image.Open(ctx, at, password, image.Options{AppendOnly: true, WorkDir: f.workDir, Parallelism: f.parallelism})
}

// secrets reads the credentials file, and fills in from the environment what it lacks.
func (f *repositoryFlags) secrets() (map[string]string, error) {
	secrets := map[string]string{}
	if f.credentialsFile != "" {
		text, err := os.ReadFile(f.credentialsFile)
		if err != nil {
			return nil, err
		}
		if yaml.Unmarshal(text, &secrets) != nil { // its error could quote the file
			return nil, fmt.Errorf("%s: not a list of lines such as \"password: ...\"", f.credentialsFile)
		}
	}
	for key, variable := range map[string]string{
		v1alpha1.SecretKeyPassword: envPassword, v1alpha1.SecretKeyAccessKeyID: "AWS_ACCESS_KEY_ID",
		v1alpha1.SecretKeySecretAccessKey: "AWS_SECRET_ACCESS_KEY", v1alpha1.SecretKeySASToken: "AZURE_STORAGE_SAS_TOKEN",
	} {
		if value := os.Getenv(variable); value != "" && secrets[key] == "" {
			secrets[key] = value
		}
	}
	if path := os.Getenv("GOOGLE_APPLICATION_CREDENTIALS"); path != "" && secrets[v1alpha1.SecretKeyServiceAccountKey] == "" && strings.HasPrefix(f.repository, "gs://") {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		secrets[v1alpha1.SecretKeyServiceAccountKey] = string(text)
	}
	return secrets, nil
}

func (f *repositoryFlags) password(secrets map[string]string) (string, error) {
	if f.passwordFile != "" {
		file, err := os.Open(f.passwordFile)
		if err != nil {
			return "", err
		}
		defer file.Close() //nolint:errcheck // read only
		line, err := bufio.NewReader(file).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			return "", fmt.Errorf("%s: its first line is empty, where the password should be", f.passwordFile)
		}
		return line, nil
	}
	if password := secrets[v1alpha1.SecretKeyPassword]; password != "" {
		return password, nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return "", errors.New("the repository's password is missing: set " + envPassword + ", or name a file with --password-file or --credentials-file")
	}
	fmt.Fprint(os.Stderr, "Password of the repository: ")
	typed, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(os.Stderr)
	return string(typed), err
}

// location reads --repository.
func (f *repositoryFlags) location(secrets map[string]string) (image.Location, error) {
	kind, rest, isURL := strings.Cut(f.repository, "://")
	bucket, prefix, _ := strings.Cut(rest, "/")
	switch {
	case f.repository == "":
		return image.Location{}, errors.New("which repository? Name it with --repository or " + envRepository)
	case !isURL:
		path, err := filepath.Abs(f.repository)
		return image.Location{Filesystem: &image.FilesystemLocation{Path: path}}, err
	case bucket == "":
		return image.Location{}, fmt.Errorf("--repository %s names no bucket: write %s://BUCKET/PREFIX", f.repository, kind)
	}
	switch kind {
	case "s3":
		return f.s3(bucket, prefix, secrets)
	case "azure":
		return f.azure(bucket, prefix, secrets)
	case "gs":
		return image.Location{GCS: &image.GCSLocation{Bucket: bucket, Prefix: prefix, ServiceAccountKey: []byte(secrets[v1alpha1.SecretKeyServiceAccountKey])}}, nil
	}
	return image.Location{}, fmt.Errorf("--repository %s is neither a directory nor one of s3://, azure:// and gs://", f.repository)
}

func (f *repositoryFlags) s3(bucket, prefix string, secrets map[string]string) (image.Location, error) {
	at := &image.S3Location{
		Endpoint: f.endpoint, Bucket: bucket, Prefix: prefix, Region: f.region, SessionToken: os.Getenv("AWS_SESSION_TOKEN"),
		AccessKeyID: secrets[v1alpha1.SecretKeyAccessKeyID], SecretAccessKey: secrets[v1alpha1.SecretKeySecretAccessKey],
	}
	if at.Endpoint == "" {
		at.Endpoint = "s3.amazonaws.com"
	}
	if f.ca != "" {
		var err error
		if at.CA, err = os.ReadFile(f.ca); err != nil {
			return image.Location{}, err
		}
	}
	if at.AccessKeyID == "" || at.SecretAccessKey == "" {
		return image.Location{}, errors.New("the credentials of the bucket are missing: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file with --credentials-file")
	}
	return image.Location{S3: at}, nil
}

func (f *repositoryFlags) azure(container, prefix string, secrets map[string]string) (image.Location, error) {
	domain, insecure := strings.CutPrefix(f.endpoint, "http://")
	at := &image.AzureLocation{
		Account: f.account, Container: container, Prefix: prefix, Domain: strings.TrimPrefix(domain, "https://"), Insecure: insecure,
		SASToken: strings.TrimPrefix(secrets[v1alpha1.SecretKeySASToken], "?"),
	}
	switch {
	case at.Account == "":
		return image.Location{}, errors.New("the storage account is missing: name it with --account or AZURE_STORAGE_ACCOUNT")
	case at.SASToken == "":
		return image.Location{}, errors.New("the credentials of the container are missing: set AZURE_STORAGE_SAS_TOKEN, or name a file with --credentials-file")
	}
	return image.Location{Azure: at}, nil
}
