// Use the client that oapi-codegen makes: go run . URL.
package main

import (
	"context"
	"fmt"
	"os"

	"example.com/calls/client"
)

const data = "SGVsbG8gdG9rZW4h"

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func text(value string) *string { return &value }

func main() {
	ctx := context.Background()
	api := must(client.NewClientWithResponses(os.Args[1]))

	pair := must(api.CreateKeyWithResponse(ctx, nil, client.CreateKeyRequest{
		Kty: "EC", Crv: text("P-256"), Alg: text("ES256"),
	})).JSON200
	signed := must(api.SignWithResponse(ctx, nil, client.SignRequest{
		Kid: pair.Kid, Alg: pair.Alg, Data: data,
	})).JSON200
	verified := must(api.VerifyWithResponse(ctx, nil, client.VerifyRequest{
		Protected: signed.Protected, Data: text(data), Signature: signed.Signature,
	})).JSON200

	secret := must(api.CreateKeyWithResponse(ctx, nil, client.CreateKeyRequest{
		Kty: "oct", Alg: text("A256GCM"),
	})).JSON200
	encrypted := must(api.EncryptWithResponse(ctx, nil, client.EncryptRequest{
		Kid: secret.Kid, Alg: text("dir"), Enc: *secret.Alg, Data: data,
	})).JSON200
	decrypted := must(api.DecryptWithResponse(ctx, nil, client.DecryptRequest{
		Protected:    encrypted.Protected,
		EncryptedKey: encrypted.EncryptedKey,
		Iv:           encrypted.Iv,
		Ciphertext:   encrypted.Ciphertext,
		Tag:          encrypted.Tag,
	})).JSON200

	for _, kid := range []string{*pair.Kid, *secret.Kid} {
		must(api.DestroyKeyWithResponse(ctx, kid, nil))
	}
	gone := must(api.GetKeyWithResponse(ctx, *pair.Kid, nil)).JSON404
	if verified.Valid && decrypted.Data == data && gone.Error == "not_found" {
		fmt.Println("all is well")
	}
}
