// go-jose as a peer: see ../__init__.py for what comes in and goes out.
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"

	jose "github.com/go-jose/go-jose/v4"
)

type task struct {
	Key     json.RawMessage `json:"key"`
	Alg     string          `json:"alg"`
	Enc     string          `json:"enc"`
	Kid     string          `json:"kid"`
	Form    string          `json:"form"`
	Payload string          `json:"payload"`
	Message json.RawMessage `json:"message"`
}

// message returns what is to be opened as text, whether it came as a string or as an object.
func (t task) message() string {
	var compact string
	if json.Unmarshal(t.Message, &compact) == nil {
		return compact
	}
	return string(t.Message)
}

func perform(t task) (any, error) {
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(t.Key); err != nil {
		return nil, err
	}
	switch {
	case t.Message == nil && t.Enc == "":
		return sign(t, key)
	case t.Message == nil:
		return encrypt(t, key)
	case t.Enc == "":
		return verify(t, key)
	default:
		return decrypt(t, key)
	}
}

func sign(t task, key jose.JSONWebKey) (any, error) {
	options := (&jose.SignerOptions{}).WithHeader("kid", t.Kid)
	signing := jose.SigningKey{Algorithm: jose.SignatureAlgorithm(t.Alg), Key: key.Key}
	signer, err := jose.NewSigner(signing, options)
	if t.Form == "general" { // with one it is flattened
		signer, err = jose.NewMultiSigner([]jose.SigningKey{signing, signing}, options)
	}
	if err != nil {
		return nil, err
	}
	payload, _ := base64.RawURLEncoding.DecodeString(t.Payload)
	made, err := signer.Sign(payload)
	if err != nil {
		return nil, err
	}
	if t.Form != "compact" {
		return map[string]any{"message": json.RawMessage(made.FullSerialize())}, nil
	}
	compact, err := made.CompactSerialize()
	return map[string]any{"message": compact}, err
}

func encrypt(t task, key jose.JSONWebKey) (any, error) {
	if public := key.Public(); public.Key != nil { // a secret key has no public half
		key = public
	}
	recipient := jose.Recipient{Algorithm: jose.KeyAlgorithm(t.Alg), Key: key.Key, KeyID: t.Kid}
	encrypter, err := jose.NewEncrypter(jose.ContentEncryption(t.Enc), recipient, nil)
	if t.Form == "general" {
		recipients := []jose.Recipient{recipient, recipient}
		encrypter, err = jose.NewMultiEncrypter(jose.ContentEncryption(t.Enc), recipients, nil)
	}
	if err != nil {
		return nil, err
	}
	payload, _ := base64.RawURLEncoding.DecodeString(t.Payload)
	made, err := encrypter.Encrypt(payload)
	if err != nil {
		return nil, err
	}
	if t.Form != "compact" {
		return map[string]any{"message": json.RawMessage(made.FullSerialize())}, nil
	}
	compact, err := made.CompactSerialize()
	return map[string]any{"message": compact}, err
}

func verify(t task, key jose.JSONWebKey) (any, error) {
	algorithms := []jose.SignatureAlgorithm{jose.SignatureAlgorithm(t.Alg)}
	message, err := jose.ParseSigned(t.message(), algorithms)
	if err != nil {
		return nil, err
	}
	payload, err := message.Verify(key.Public().Key)
	return opened(payload), err
}

func decrypt(t task, key jose.JSONWebKey) (any, error) {
	message, err := jose.ParseEncrypted(t.message(),
		[]jose.KeyAlgorithm{jose.KeyAlgorithm(t.Alg)},
		[]jose.ContentEncryption{jose.ContentEncryption(t.Enc)})
	if err != nil {
		return nil, err
	}
	payload, err := message.Decrypt(key.Key)
	return opened(payload), err
}

func opened(payload []byte) any {
	return map[string]any{"payload": base64.RawURLEncoding.EncodeToString(payload)}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var t task
		err := json.Unmarshal(lines.Bytes(), &t)
		var outcome any
		if err == nil {
			outcome, err = perform(t)
		}
		if err != nil {
			outcome = map[string]any{"lacks": err.Error()}
		}
		printed, _ := json.Marshal(outcome)
		fmt.Println(string(printed))
	}
}
